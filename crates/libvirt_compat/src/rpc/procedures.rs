//! The table of procedures, from which client, server and the compat page derive.
//!
//! A row of `served` is `NUMBER PRIORITY ACCESS name(arguments) -> result;`. The daemon has a
//! handler function of the same name and arguments; it does not compile otherwise. To serve one
//! more procedure, move it from `refused` to `served` and write that function.
//!
//! Priority is libvirt's own: `high` never waits for a monitor. Access says whether a read-only
//! connection may call it.

/// Hands the whole table of the main program to the macro `$callback`.
#[macro_export]
macro_rules! remote_procedures {
    ($callback:ident) => { $callback! {
        program $crate::rpc::PROGRAM_REMOTE;
        served {
        1 high read connect_open(name: Option<String>, flags: u32);
        2 high read connect_close();
        3 high read connect_get_type() -> String;
        4 high read connect_get_version() -> u64;
        5 high read connect_get_max_vcpus(kind: Option<String>) -> i32;
        6 high read node_get_info() -> (Model, u64, i32, i32, i32, i32, i32, i32);
        7 low read connect_get_capabilities() -> String;
        8 low write domain_attach_device(dom: Domain, xml: String);
        9 low write domain_create(dom: Domain);
        10 low write domain_create_xml(xml_desc: String, flags: u32) -> Domain;
        11 high write domain_define_xml(xml: String) -> Domain;
        12 high write domain_destroy(dom: Domain);
        13 low write domain_detach_device(dom: Domain, xml: String);
        14 low read domain_get_xml_desc(dom: Domain, flags: u32) -> String;
        15 high read domain_get_autostart(dom: Domain) -> i32;
        16 low read domain_get_info(dom: Domain) -> (u32, u64, u64, u32, u64);
        17 high read domain_get_max_memory(dom: Domain) -> u64;
        18 high read domain_get_max_vcpus(dom: Domain) -> i32;
        19 high read domain_get_os_type(dom: Domain) -> String;
        20 high read domain_get_vcpus(dom: Domain, maxinfo: i32, maplen: i32) -> (Vec<VcpuInfo>, Opaque);
        21 high read connect_list_defined_domains(maxnames: i32) -> Vec<String>;
        22 high read domain_lookup_by_id(id: i32) -> Domain;
        23 high read domain_lookup_by_name(name: String) -> Domain;
        24 high read domain_lookup_by_uuid(uuid: Uuid) -> Domain;
        25 high read connect_num_of_defined_domains() -> i32;
        26 low write domain_pin_vcpu(dom: Domain, vcpu: u32, cpumap: Opaque);
        27 low write domain_reboot(dom: Domain, flags: u32);
        28 low write domain_resume(dom: Domain);
        29 high write domain_set_autostart(dom: Domain, autostart: i32);
        30 high write domain_set_max_memory(dom: Domain, memory: u64);
        31 low write domain_set_memory(dom: Domain, memory: u64);
        32 low write domain_set_vcpus(dom: Domain, nvcpus: u32);
        33 low write domain_shutdown(dom: Domain);
        34 low write domain_suspend(dom: Domain);
        35 high write domain_undefine(dom: Domain);
        36 high read connect_list_defined_networks(maxnames: i32) -> Vec<String>;
        37 high read connect_list_domains(maxids: i32) -> Vec<i32>;
        38 high read connect_list_networks(maxnames: i32) -> Vec<String>;
        39 low write network_create(net: Network);
        40 low write network_create_xml(xml: String) -> Network;
        41 high write network_define_xml(xml: String) -> Network;
        42 high write network_destroy(net: Network);
        43 high read network_get_xml_desc(net: Network, flags: u32) -> String;
        44 high read network_get_autostart(net: Network) -> i32;
        45 high read network_get_bridge_name(net: Network) -> String;
        46 high read network_lookup_by_name(name: String) -> Network;
        47 high read network_lookup_by_uuid(uuid: Uuid) -> Network;
        48 high write network_set_autostart(net: Network, autostart: i32);
        49 high write network_undefine(net: Network);
        50 high read connect_num_of_defined_networks() -> i32;
        51 high read connect_num_of_domains() -> i32;
        52 high read connect_num_of_networks() -> i32;
        53 low write domain_core_dump(dom: Domain, to: String, flags: u32);
        54 low write domain_restore(from: String);
        55 low write domain_save(dom: Domain, to: String);
        56 low read domain_get_scheduler_type(dom: Domain) -> (String, i32);
        59 high read connect_get_hostname() -> String;
        60 high read connect_supports_feature(feature: i32) -> i32;
        64 low read domain_block_stats(dom: Domain, path: String) -> (i64, i64, i64, i64, i64);
        65 high read domain_interface_stats(dom: Domain, device: String) -> (i64, i64, i64, i64, i64, i64, i64, i64);
        66 high read auth_list() -> Vec<i32>;
        70 high read auth_polkit() -> i32;
        71 high read connect_num_of_storage_pools() -> i32;
        72 high read connect_list_storage_pools(maxnames: i32) -> Vec<String>;
        73 high read connect_num_of_defined_storage_pools() -> i32;
        74 high read connect_list_defined_storage_pools(maxnames: i32) -> Vec<String>;
        75 low read connect_find_storage_pool_sources(kind: String, src_spec: Option<String>, flags: u32) -> String;
        76 low write storage_pool_create_xml(xml: String, flags: u32) -> StoragePool;
        77 high write storage_pool_define_xml(xml: String, flags: u32) -> StoragePool;
        78 low write storage_pool_create(pool: StoragePool, flags: u32);
        79 low write storage_pool_build(pool: StoragePool, flags: u32);
        80 high write storage_pool_destroy(pool: StoragePool);
        81 low write storage_pool_delete(pool: StoragePool, flags: u32);
        82 high write storage_pool_undefine(pool: StoragePool);
        83 low write storage_pool_refresh(pool: StoragePool, flags: u32);
        84 high read storage_pool_lookup_by_name(name: String) -> StoragePool;
        85 high read storage_pool_lookup_by_uuid(uuid: Uuid) -> StoragePool;
        86 high read storage_pool_lookup_by_volume(vol: StorageVol) -> StoragePool;
        87 high read storage_pool_get_info(pool: StoragePool) -> (u32, u64, u64, u64);
        88 high read storage_pool_get_xml_desc(pool: StoragePool, flags: u32) -> String;
        89 high read storage_pool_get_autostart(pool: StoragePool) -> i32;
        90 high write storage_pool_set_autostart(pool: StoragePool, autostart: i32);
        91 high read storage_pool_num_of_volumes(pool: StoragePool) -> i32;
        92 high read storage_pool_list_volumes(pool: StoragePool, maxnames: i32) -> Vec<String>;
        93 low write storage_vol_create_xml(pool: StoragePool, xml: String, flags: u32) -> StorageVol;
        94 low write storage_vol_delete(vol: StorageVol, flags: u32);
        95 high read storage_vol_lookup_by_name(pool: StoragePool, name: String) -> StorageVol;
        96 high read storage_vol_lookup_by_key(key: String) -> StorageVol;
        97 high read storage_vol_lookup_by_path(path: String) -> StorageVol;
        98 high read storage_vol_get_info(vol: StorageVol) -> (i32, u64, u64);
        99 high read storage_vol_get_xml_desc(vol: StorageVol, flags: u32) -> String;
        100 high read storage_vol_get_path(vol: StorageVol) -> String;
        101 high read node_get_cells_free_memory(start_cell: i32, maxcells: i32) -> Vec<u64>;
        102 high read node_get_free_memory() -> u64;
        110 high read connect_get_uri() -> String;
        111 high read node_num_of_devices(cap: Option<String>, flags: u32) -> i32;
        112 high read node_list_devices(cap: Option<String>, maxnames: i32, flags: u32) -> Vec<String>;
        113 high read node_device_lookup_by_name(name: String) -> NodeDevice;
        114 low read node_device_get_xml_desc(name: String, flags: u32) -> String;
        115 high read node_device_get_parent(name: String) -> Option<String>;
        116 high read node_device_num_of_caps(name: String) -> i32;
        117 high read node_device_list_caps(name: String, maxnames: i32) -> Vec<String>;
        121 high read domain_get_security_label(dom: Domain) -> (Chars, i32);
        122 high read node_get_security_model() -> (Chars, Chars);
        125 low write storage_vol_create_xml_from(pool: StoragePool, xml: String, clonevol: StorageVol, flags: u32) -> StorageVol;
        126 high read connect_num_of_interfaces() -> i32;
        127 high read connect_list_interfaces(maxnames: i32) -> Vec<String>;
        128 high read interface_lookup_by_name(name: String) -> Interface;
        129 high read interface_lookup_by_mac_string(mac: String) -> Interface;
        130 low read interface_get_xml_desc(iface: Interface, flags: u32) -> String;
        136 low write connect_domain_xml_to_native(native_format: String, domain_xml: String, flags: u32) -> String;
        137 high read connect_num_of_defined_interfaces() -> i32;
        138 high read connect_list_defined_interfaces(maxnames: i32) -> Vec<String>;
        139 high read connect_num_of_secrets() -> i32;
        140 high read connect_list_secrets(maxuuids: i32) -> Vec<String>;
        141 high read secret_lookup_by_uuid(uuid: Uuid) -> Secret;
        142 high write secret_define_xml(xml: String, flags: u32) -> Secret;
        143 high read secret_get_xml_desc(secret: Secret, flags: u32) -> String;
        144 high write secret_set_value(secret: Secret, value: Opaque, flags: u32);
        145 high write secret_get_value(secret: Secret, flags: u32) -> Opaque;
        146 high write secret_undefine(secret: Secret);
        147 high read secret_lookup_by_usage(usage_type: i32, usage_id: String) -> Secret;
        149 high read connect_is_secure() -> i32;
        150 high read domain_is_active(dom: Domain) -> i32;
        151 high read domain_is_persistent(dom: Domain) -> i32;
        152 high read network_is_active(net: Network) -> i32;
        153 high read network_is_persistent(net: Network) -> i32;
        154 high read storage_pool_is_active(pool: StoragePool) -> i32;
        155 high read storage_pool_is_persistent(pool: StoragePool) -> i32;
        156 high read interface_is_active(iface: Interface) -> i32;
        157 high read connect_get_lib_version() -> u64;
        159 low read domain_memory_stats(dom: Domain, max_stats: u32, flags: u32) -> Vec<MemoryStat>;
        160 low write domain_attach_device_flags(dom: Domain, xml: String, flags: u32);
        161 low write domain_detach_device_flags(dom: Domain, xml: String, flags: u32);
        162 low read connect_baseline_cpu(cpus: Vec<String>, flags: u32) -> String;
        163 low read domain_get_job_info(dom: Domain) -> (i32, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64);
        164 low write domain_abort_job(dom: Domain);
        165 low write storage_vol_wipe(vol: StorageVol, flags: u32);
        174 low write domain_update_device_flags(dom: Domain, xml: String, flags: u32);
        175 high read nwfilter_lookup_by_name(name: String) -> Nwfilter;
        176 high read nwfilter_lookup_by_uuid(uuid: Uuid) -> Nwfilter;
        178 high read connect_num_of_nwfilters() -> i32;
        179 high read connect_list_nwfilters(maxnames: i32) -> Vec<String>;
        182 low write domain_managed_save(dom: Domain, flags: u32);
        183 low read domain_has_managed_save_image(dom: Domain, flags: u32) -> i32;
        184 low write domain_managed_save_remove(dom: Domain, flags: u32);
        185 low write domain_snapshot_create_xml(dom: Domain, xml_desc: String, flags: u32) -> Snapshot;
        186 high read domain_snapshot_get_xml_desc(snap: Snapshot, flags: u32) -> String;
        187 high read domain_snapshot_num(dom: Domain, flags: u32) -> i32;
        188 high read domain_snapshot_list_names(dom: Domain, maxnames: i32, flags: u32) -> Vec<String>;
        189 high read domain_snapshot_lookup_by_name(dom: Domain, name: String, flags: u32) -> Snapshot;
        190 low read domain_has_current_snapshot(dom: Domain, flags: u32) -> i32;
        191 low read domain_snapshot_current(dom: Domain, flags: u32) -> Snapshot;
        192 low write domain_revert_to_snapshot(snap: Snapshot, flags: u32);
        193 low write domain_snapshot_delete(snap: Snapshot, flags: u32);
        194 low read domain_get_block_info(dom: Domain, path: String, flags: u32) -> (u64, u64, u64);
        196 low write domain_create_with_flags(dom: Domain, flags: u32) -> Domain;
        199 low write domain_set_vcpus_flags(dom: Domain, nvcpus: u32, flags: u32);
        200 low read domain_get_vcpus_flags(dom: Domain, flags: u32) -> i32;
        201 low write domain_open_console(dom: Domain, dev_name: Option<String>, flags: u32);
        202 high read domain_is_updated(dom: Domain) -> i32;
        203 high read connect_get_sysinfo(flags: u32) -> String;
        204 low write domain_set_memory_flags(dom: Domain, memory: u64, flags: u32);
        207 high write domain_migrate_set_max_speed(dom: Domain, bandwidth: u64, flags: u32);
        208 low write storage_vol_upload(vol: StorageVol, offset: u64, length: u64, flags: u32);
        209 low write storage_vol_download(vol: StorageVol, offset: u64, length: u64, flags: u32);
        210 low write domain_inject_nmi(dom: Domain, flags: u32);
        211 low write domain_screenshot(dom: Domain, screen: u32, flags: u32) -> Option<String>;
        212 high read domain_get_state(dom: Domain, flags: u32) -> (i32, i32);
        225 low write domain_pin_vcpu_flags(dom: Domain, vcpu: u32, cpumap: Opaque, flags: u32);
        226 low write domain_send_key(dom: Domain, codeset: u32, holdtime: u32, keycodes: Vec<u32>, flags: u32);
        227 high read node_get_cpu_stats(cpu_num: i32, nparams: i32, flags: u32) -> (Vec<NamedCount>, i32);
        228 high read node_get_memory_stats(nparams: i32, cell_num: i32, flags: u32) -> (Vec<NamedCount>, i32);
        229 high read domain_get_control_info(dom: Domain, flags: u32) -> (u32, u32, u64);
        230 low read domain_get_vcpu_pin_info(dom: Domain, ncpumaps: i32, maplen: i32, flags: u32) -> (Opaque, i32);
        231 high write domain_undefine_flags(dom: Domain, flags: u32);
        232 low write domain_save_flags(dom: Domain, to: String, dxml: Option<String>, flags: u32);
        233 low write domain_restore_flags(from: String, dxml: Option<String>, flags: u32);
        234 high write domain_destroy_flags(dom: Domain, flags: u32);
        235 high write domain_save_image_get_xml_desc(file: String, flags: u32) -> String;
        236 low write domain_save_image_define_xml(file: String, dxml: String, flags: u32);
        237 low write domain_block_job_abort(dom: Domain, path: String, flags: u32);
        238 low read domain_get_block_job_info(dom: Domain, path: String, flags: u32) -> (i32, i32, u64, u64, u64);
        239 low write domain_block_job_set_speed(dom: Domain, path: String, bandwidth: u64, flags: u32);
        240 low write domain_block_pull(dom: Domain, path: String, bandwidth: u64, flags: u32);
        242 high read domain_migrate_get_max_speed(dom: Domain, flags: u32) -> u64;
        243 low read domain_block_stats_flags(dom: Domain, path: String, nparams: i32, flags: u32) -> (Vec<TypedParameter>, i32);
        244 high read domain_snapshot_get_parent(snap: Snapshot, flags: u32) -> Snapshot;
        245 low write domain_reset(dom: Domain, flags: u32);
        246 high read domain_snapshot_num_children(snap: Snapshot, flags: u32) -> i32;
        247 high read domain_snapshot_list_children_names(snap: Snapshot, maxnames: i32, flags: u32) -> Vec<String>;
        249 low write domain_open_graphics(dom: Domain, idx: u32, flags: u32);
        251 low write domain_block_resize(dom: Domain, disk: String, size: u64, flags: u32);
        252 low write domain_set_block_io_tune(dom: Domain, disk: String, params: Vec<TypedParameter>, flags: u32);
        258 low write domain_shutdown_flags(dom: Domain, flags: u32);
        259 low write storage_vol_wipe_pattern(vol: StorageVol, algorithm: u32, flags: u32);
        260 low write storage_vol_resize(vol: StorageVol, capacity: u64, flags: u32);
        262 low read domain_get_cpu_stats(dom: Domain, nparams: u32, start_cpu: i32, ncpus: u32, flags: u32) -> (Vec<TypedParameter>, i32);
        264 low write domain_set_metadata(dom: Domain, kind: i32, metadata: Option<String>, key: Option<String>, uri: Option<String>, flags: u32);
        265 low read domain_get_metadata(dom: Domain, kind: i32, uri: Option<String>, flags: u32) -> String;
        266 low write domain_block_rebase(dom: Domain, path: String, base: Option<String>, bandwidth: u64, flags: u32);
        271 low read domain_snapshot_is_current(snap: Snapshot, flags: u32) -> i32;
        272 low read domain_snapshot_has_metadata(snap: Snapshot, flags: u32) -> i32;
        273 high read connect_list_all_domains(need_results: i32, flags: u32) -> (Vec<Domain>, u32);
        274 high read domain_list_all_snapshots(dom: Domain, need_results: i32, flags: u32) -> (Vec<Snapshot>, i32);
        275 high read domain_snapshot_list_all_children(snapshot: Snapshot, need_results: i32, flags: u32) -> (Vec<Snapshot>, i32);
        277 low write domain_get_hostname(dom: Domain, flags: u32) -> String;
        278 high read domain_get_security_label_list(dom: Domain) -> (Vec<SecurityLabel>, i32);
        280 low read domain_get_emulator_pin_info(dom: Domain, maplen: i32, flags: u32) -> (Opaque, i32);
        281 high read connect_list_all_storage_pools(need_results: i32, flags: u32) -> (Vec<StoragePool>, u32);
        282 high read storage_pool_list_all_volumes(pool: StoragePool, need_results: i32, flags: u32) -> (Vec<StorageVol>, u32);
        283 high read connect_list_all_networks(need_results: i32, flags: u32) -> (Vec<Network>, u32);
        284 high read connect_list_all_interfaces(need_results: i32, flags: u32) -> (Vec<Interface>, u32);
        285 high read connect_list_all_node_devices(need_results: i32, flags: u32) -> (Vec<NodeDevice>, u32);
        286 high read connect_list_all_nwfilters(need_results: i32, flags: u32) -> (Vec<Nwfilter>, u32);
        287 high read connect_list_all_secrets(need_results: i32, flags: u32) -> (Vec<Secret>, u32);
        289 low read node_get_memory_parameters(nparams: i32, flags: u32) -> (Vec<TypedParameter>, i32);
        290 low write domain_block_commit(dom: Domain, disk: String, base: Option<String>, top: Option<String>, bandwidth: u64, flags: u32);
        291 high write network_update(net: Network, command: u32, section: u32, parent_index: i32, xml: String, flags: u32);
        293 low read node_get_cpu_map(need_map: i32, need_online: i32, flags: u32) -> (Opaque, u32, i32);
        294 low write domain_fstrim(dom: Domain, mount_point: Option<String>, minimum: u64, flags: u32);
        296 low write domain_open_channel(dom: Domain, name: Option<String>, flags: u32);
        298 low read domain_get_job_stats(dom: Domain, flags: u32) -> (i32, Vec<TypedParameter>);
        308 low write domain_set_memory_stats_period(dom: Domain, period: i32, flags: u32);
        312 low read connect_get_cpu_model_names(arch: String, need_results: i32, flags: u32) -> (Vec<String>, i32);
        313 high read connect_network_event_register_any(event_id: i32, net: Option<Network>) -> i32;
        314 high read connect_network_event_deregister_any(callback_id: i32);
        316 high read connect_domain_event_callback_register_any(event_id: i32, dom: Option<Domain>) -> i32;
        317 high read connect_domain_event_callback_deregister_any(callback_id: i32);
        334 low write domain_core_dump_with_format(dom: Domain, to: String, dumpformat: u32, flags: u32);
        335 low write domain_fsfreeze(dom: Domain, mountpoints: Vec<String>, flags: u32) -> i32;
        336 low write domain_fsthaw(dom: Domain, mountpoints: Vec<String>, flags: u32) -> i32;
        337 low write domain_get_time(dom: Domain, flags: u32) -> (i64, u32);
        338 low write domain_set_time(dom: Domain, seconds: i64, nseconds: u32, flags: u32);
        341 low read network_get_dhcp_leases(net: Network, mac: Option<String>, need_results: i32, flags: u32) -> (Vec<DhcpLease>, u32);
        342 low write connect_get_domain_capabilities(emulatorbin: Option<String>, arch: Option<String>, machine: Option<String>, virttype: Option<String>, flags: u32) -> String;
        343 low write domain_open_graphics_fd(dom: Domain, idx: u32, flags: u32);
        344 low read connect_get_all_domain_stats(doms: Vec<Domain>, stats: u32, flags: u32) -> Vec<StatsRecord>;
        345 low write domain_block_copy(dom: Domain, path: String, destxml: String, params: Vec<TypedParameter>, flags: u32);
        349 low write domain_get_fsinfo(dom: Domain, flags: u32) -> (Vec<FilesystemInfo>, u32);
        350 high write domain_define_xml_flags(xml: String, flags: u32) -> Domain;
        353 low read domain_interface_addresses(dom: Domain, source: u32, flags: u32) -> Vec<DomainInterface>;
        357 low write domain_set_user_password(dom: Domain, user: Option<String>, password: Option<String>, flags: u32);
        358 low write domain_rename(dom: Domain, new_name: Option<String>, flags: u32) -> i32;
        360 high read connect_register_close_callback();
        361 high read connect_unregister_close_callback();
        368 high read connect_storage_pool_event_register_any(event_id: i32, pool: Option<StoragePool>) -> i32;
        369 high read connect_storage_pool_event_deregister_any(callback_id: i32);
        374 high read connect_node_device_event_register_any(event_id: i32, dev: Option<NodeDevice>) -> i32;
        375 high read connect_node_device_event_deregister_any(callback_id: i32);
        378 high read storage_vol_get_info_flags(vol: StorageVol, flags: u32) -> (i32, u64, u64);
        380 high read connect_secret_event_register_any(event_id: i32, secret: Option<Secret>) -> i32;
        381 high read connect_secret_event_deregister_any(callback_id: i32);
        388 low read domain_managed_save_get_xml_desc(dom: Domain, flags: u32) -> String;
        389 low write domain_managed_save_define_xml(dom: Domain, dxml: Option<String>, flags: u32);
        391 high read storage_pool_lookup_by_target_path(path: String) -> StoragePool;
        394 low write connect_baseline_hypervisor_cpu(emulator: Option<String>, arch: Option<String>, machine: Option<String>, virttype: Option<String>, cpus: Vec<String>, flags: u32) -> String;
        401 high read connect_list_all_nwfilter_bindings(need_results: i32, flags: u32) -> (Vec<NwfilterBinding>, u32);
        411 low write domain_checkpoint_create_xml(dom: Domain, xml: String, flags: u32) -> Checkpoint;
        412 low read domain_checkpoint_get_xml_desc(checkpoint: Checkpoint, flags: u32) -> String;
        413 high read domain_list_all_checkpoints(dom: Domain, need_results: i32, flags: u32) -> (Vec<Checkpoint>, i32);
        414 high read domain_checkpoint_list_all_children(checkpoint: Checkpoint, need_results: i32, flags: u32) -> (Vec<Checkpoint>, i32);
        415 high read domain_checkpoint_lookup_by_name(dom: Domain, name: String, flags: u32) -> Checkpoint;
        416 high read domain_checkpoint_get_parent(checkpoint: Checkpoint, flags: u32) -> Checkpoint;
        417 low write domain_checkpoint_delete(checkpoint: Checkpoint, flags: u32);
        419 low write connect_set_identity(params: Vec<TypedParameter>, flags: u32);
        421 low write domain_backup_begin(dom: Domain, backup_xml: String, checkpoint_xml: Option<String>, flags: u32);
        422 high read domain_backup_get_xml_desc(dom: Domain, flags: u32) -> String;
        426 low read domain_get_messages(dom: Domain, flags: u32) -> Vec<String>;
        432 high write network_define_xml_flags(xml: String, flags: u32) -> Network;
        433 high read node_device_get_autostart(name: String) -> i32;
        435 high read node_device_is_persistent(name: String) -> i32;
        436 high read node_device_is_active(name: String) -> i32;
        437 high write network_create_xml_flags(xml: String, flags: u32) -> Network;
        442 low write domain_abort_job_flags(dom: Domain, flags: u32);
        }
        refused {
        57 domain_get_scheduler_parameters, 58 domain_set_scheduler_parameters,
        61 domain_migrate_prepare, 62 domain_migrate_perform, 63 domain_migrate_finish,
        67 auth_sasl_init, 68 auth_sasl_start, 69 auth_sasl_step,
        103 domain_block_peek, 104 domain_memory_peek,
        105 connect_domain_event_register, 106 connect_domain_event_deregister,
        108 domain_migrate_prepare2, 109 domain_migrate_finish2, 118 node_device_dettach,
        119 node_device_re_attach, 120 node_device_reset, 123 node_device_create_xml,
        124 node_device_destroy, 131 interface_define_xml, 132 interface_undefine,
        133 interface_create, 134 interface_destroy, 135 connect_domain_xml_from_native,
        148 domain_migrate_prepare_tunnel, 158 connect_compare_cpu,
         166 domain_migrate_set_max_downtime,
        167 connect_domain_event_register_any, 168 connect_domain_event_deregister_any,
        177 nwfilter_get_xml_desc, 180 nwfilter_define_xml, 181 nwfilter_undefine,
        197 domain_set_memory_parameters, 198 domain_get_memory_parameters,
        205 domain_set_blkio_parameters, 206 domain_get_blkio_parameters,
        213 domain_migrate_begin3, 214 domain_migrate_prepare3,
        215 domain_migrate_prepare_tunnel3, 216 domain_migrate_perform3,
        217 domain_migrate_finish3, 218 domain_migrate_confirm3,
        219 domain_set_scheduler_parameters_flags, 220 interface_change_begin,
        221 interface_change_commit, 222 interface_change_rollback,
        223 domain_get_scheduler_parameters_flags,

        250 node_suspend_for_duration,
        253 domain_get_block_io_tune, 254 domain_set_numa_parameters,
        255 domain_get_numa_parameters, 256 domain_set_interface_parameters,
        257 domain_get_interface_parameters, 261 domain_pm_suspend_for_duration,
        263 domain_get_disk_errors, 267 domain_pm_wakeup,
        279 domain_pin_emulator, 288 node_set_memory_parameters,
        295 domain_send_process_signal, 297 node_device_lookup_scsi_host_by_wwn,
        299 domain_migrate_get_compression_cache, 300 domain_migrate_set_compression_cache,
        301 node_device_detach_flags, 302 domain_migrate_begin3_params,
        303 domain_migrate_prepare3_params, 304 domain_migrate_prepare_tunnel3_params,
        305 domain_migrate_perform3_params, 306 domain_migrate_finish3_params,
        307 domain_migrate_confirm3_params, 309 domain_create_xml_with_files,
        310 domain_create_with_files, 340 node_get_free_pages,
        347 node_alloc_pages, 351 domain_get_iothread_info, 352 domain_pin_iothread,
        355 domain_add_iothread, 356 domain_del_iothread, 364 domain_migrate_start_post_copy,
        365 domain_get_perf_events, 366 domain_set_perf_events, 371 domain_get_guest_vcpus,
        372 domain_set_guest_vcpus, 384 domain_set_vcpu, 386 domain_set_block_threshold,
        387 domain_migrate_get_max_downtime,
        390 domain_set_lifecycle_action, 392 domain_detach_device_alias,
        393 connect_compare_hypervisor_cpu,
        395 node_get_sev_info, 396 domain_get_launch_security_info,
        397 nwfilter_binding_lookup_by_port_dev, 398 nwfilter_binding_get_xml_desc,
        399 nwfilter_binding_create_xml, 400 nwfilter_binding_delete,
        402 domain_set_iothread_params, 403 connect_get_storage_pool_capabilities,
        404 network_list_all_ports, 405 network_port_lookup_by_uuid, 406 network_port_create_xml,
        407 network_port_get_parameters, 408 network_port_set_parameters,
        409 network_port_get_xml_desc, 410 network_port_delete,                               418 domain_get_guest_info,
        420 domain_agent_set_response_timeout,           424 domain_authorized_ssh_keys_get,
        425 domain_authorized_ssh_keys_set, 427 domain_start_dirty_rate_calc,
        428 node_device_define_xml, 429 node_device_undefine, 430 node_device_create,
        431 nwfilter_define_xml_flags, 434 node_device_set_autostart,
        439 domain_set_launch_security_state, 440 domain_save_params, 441 domain_restore_params,
         443 domain_fd_associate,
        }
        events {
        107 domain_event_lifecycle, 169 domain_event_reboot, 170 domain_event_rtc_change,
        171 domain_event_watchdog, 172 domain_event_io_error, 173 domain_event_graphics,
        195 domain_event_io_error_reason, 224 domain_event_control_error,
        241 domain_event_block_job, 248 domain_event_disk_change, 268 domain_event_tray_change,
        269 domain_event_pmwakeup, 270 domain_event_pmsuspend, 276 domain_event_balloon_change,
        292 domain_event_pmsuspend_disk, 311 domain_event_device_removed,
        315 network_event_lifecycle, 318 domain_event_callback_lifecycle,
        319 domain_event_callback_reboot, 320 domain_event_callback_rtc_change,
        321 domain_event_callback_watchdog, 322 domain_event_callback_io_error,
        323 domain_event_callback_graphics, 324 domain_event_callback_io_error_reason,
        325 domain_event_callback_control_error, 326 domain_event_callback_block_job,
        327 domain_event_callback_disk_change, 328 domain_event_callback_tray_change,
        329 domain_event_callback_pmwakeup, 330 domain_event_callback_pmsuspend,
        331 domain_event_callback_balloon_change, 332 domain_event_callback_pmsuspend_disk,
        333 domain_event_callback_device_removed, 339 domain_event_block_job_2,
        346 domain_event_callback_tunable, 348 domain_event_callback_agent_lifecycle,
        354 domain_event_callback_device_added, 359 domain_event_callback_migration_iteration,
        362 connect_event_connection_closed, 363 domain_event_callback_job_completed,
        367 domain_event_callback_device_removal_failed, 370 storage_pool_event_lifecycle,
        373 storage_pool_event_refresh, 376 node_device_event_lifecycle,
        377 node_device_event_update, 379 domain_event_callback_metadata_change,
        382 secret_event_lifecycle, 383 secret_event_value_changed,
        385 domain_event_block_threshold, 423 domain_event_memory_failure,
        438 domain_event_memory_device_size_change,
        }
    } };
}

/// The same for QEMU's own program.
#[macro_export]
macro_rules! qemu_procedures {
    ($callback:ident) => { $callback! {
        program $crate::rpc::PROGRAM_QEMU;
        served {
        1 low write qemu_domain_monitor_command(dom: Domain, cmd: String, flags: u32) -> String;
        3 low write qemu_domain_agent_command(dom: Domain, cmd: String, timeout: i32, flags: u32) -> Option<String>;
        4 high write qemu_connect_domain_monitor_event_register(dom: Option<Domain>, event: Option<String>, flags: u32) -> i32;
        5 high write qemu_connect_domain_monitor_event_deregister(callback_id: i32);
        }
        refused {
        2 domain_attach, 7 domain_monitor_command_with_files,
        }
        events {
        6 domain_monitor_event,
        }
    } };
}

/// What the daemon does with a procedure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There is a handler.
    Served,
    /// Known, and answered with "not supported".
    Refused,
    /// Sent by the daemon, never called.
    Event,
}

/// Whether a procedure may have to wait for a monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Answers at once.
    High,
    /// May block.
    Low,
}

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everyone.
    Read,
    /// Not a read-only connection.
    Write,
}

/// One procedure.
#[derive(Clone, Copy, Debug)]
pub struct Procedure {
    /// The program it belongs to.
    pub program: u32,
    /// Its number on the wire.
    pub number: u32,
    /// libvirt's name in lower case.
    pub name: &'static str,
    /// Served, refused or an event.
    pub standing: Standing,
    /// Which workers serve it.
    pub priority: Priority,
    /// Who may call it.
    pub access: Access,
}

macro_rules! word {
    (high) => {
        Priority::High
    };
    (low) => {
        Priority::Low
    };
    (read) => {
        Access::Read
    };
    (write) => {
        Access::Write
    };
}

macro_rules! rows {
    (
        program $program:expr;
        served { $($number:literal $priority:ident $access:ident
            $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        refused { $($refused_number:literal $refused:ident,)* }
        events { $($event_number:literal $event:ident,)* }
    ) => {
        &[
            $(Procedure {
                program: $program,
                number: $number,
                name: stringify!($name),
                standing: Standing::Served,
                priority: word!($priority),
                access: word!($access),
            },)*
            $(unserved($program, $refused_number, stringify!($refused), Standing::Refused),)*
            $(unserved($program, $event_number, stringify!($event), Standing::Event),)*
        ]
    };
}

const fn unserved(program: u32, number: u32, name: &'static str, standing: Standing) -> Procedure {
    let (priority, access) = (Priority::High, Access::Write);
    Procedure { program, number, name, standing, priority, access }
}

const REMOTE: &[Procedure] = remote_procedures!(rows);
const QEMU: &[Procedure] = qemu_procedures!(rows);

/// Every procedure of every program that has a table.
pub const PROCEDURES: [&[Procedure]; 2] = [REMOTE, QEMU];

/// The procedure with this number, whatever its standing.
pub fn find(program: u32, number: u32) -> Option<&'static Procedure> {
    static INDEX: [[u16; NUMBERS]; 2] = [index(REMOTE), index(QEMU)];
    let table = match program {
        super::PROGRAM_REMOTE => 0,
        super::PROGRAM_QEMU => 1,
        _ => return None,
    };
    let place = *INDEX[table].get(number as usize)?;
    PROCEDURES[table].get(usize::from(place).checked_sub(1)?)
}

/// No program numbers its procedures higher than this.
const NUMBERS: usize = 512;

/// For each number its place in the table plus one, or zero. Two rows of one number do not compile.
const fn index(table: &[Procedure]) -> [u16; NUMBERS] {
    let mut places = [0; NUMBERS];
    let mut place = 0;
    while place < table.len() {
        let number = table[place].number as usize;
        assert!(places[number] == 0, "two procedures have the same number");
        place += 1;
        places[number] = place as u16;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::{PROGRAM_QEMU, PROGRAM_REMOTE};
    use super::*;

    #[test]
    fn numbers_find_their_rows() {
        for table in PROCEDURES {
            for row in table {
                assert_eq!(find(row.program, row.number).map(|found| found.name), Some(row.name));
            }
        }
        assert_eq!(find(PROGRAM_REMOTE, 1).map(|row| row.name), Some("connect_open"));
        assert!(find(PROGRAM_REMOTE, 0).is_none());
        assert!(find(PROGRAM_REMOTE, u32::MAX).is_none());
        assert!(find(PROGRAM_QEMU, 99).is_none());
    }

    #[test]
    fn the_table_has_no_hole() {
        for number in 1..=443 {
            assert!(find(PROGRAM_REMOTE, number).is_some(), "procedure {number} is missing");
        }
    }
}
