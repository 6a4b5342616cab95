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

        }
        refused {
        1 connect_open, 2 connect_close, 3 connect_get_type, 4 connect_get_version,
        5 connect_get_max_vcpus, 6 node_get_info, 7 connect_get_capabilities,
        8 domain_attach_device, 9 domain_create, 10 domain_create_xml, 11 domain_define_xml,
        12 domain_destroy, 13 domain_detach_device, 14 domain_get_xml_desc,
        15 domain_get_autostart, 16 domain_get_info, 17 domain_get_max_memory,
        18 domain_get_max_vcpus, 19 domain_get_os_type, 20 domain_get_vcpus,
        21 connect_list_defined_domains, 22 domain_lookup_by_id, 23 domain_lookup_by_name,
        24 domain_lookup_by_uuid, 25 connect_num_of_defined_domains, 26 domain_pin_vcpu,
        27 domain_reboot, 28 domain_resume, 29 domain_set_autostart, 30 domain_set_max_memory,
        31 domain_set_memory, 32 domain_set_vcpus, 33 domain_shutdown, 34 domain_suspend,
        35 domain_undefine, 36 connect_list_defined_networks, 37 connect_list_domains,
        38 connect_list_networks, 39 network_create, 40 network_create_xml, 41 network_define_xml,
        42 network_destroy, 43 network_get_xml_desc, 44 network_get_autostart,
        45 network_get_bridge_name, 46 network_lookup_by_name, 47 network_lookup_by_uuid,
        48 network_set_autostart, 49 network_undefine, 50 connect_num_of_defined_networks,
        51 connect_num_of_domains, 52 connect_num_of_networks, 53 domain_core_dump,
        54 domain_restore, 55 domain_save, 56 domain_get_scheduler_type,
        57 domain_get_scheduler_parameters, 58 domain_set_scheduler_parameters,
        59 connect_get_hostname, 60 connect_supports_feature, 61 domain_migrate_prepare,
        62 domain_migrate_perform, 63 domain_migrate_finish, 64 domain_block_stats,
        65 domain_interface_stats, 66 auth_list, 67 auth_sasl_init, 68 auth_sasl_start,
        69 auth_sasl_step, 70 auth_polkit, 71 connect_num_of_storage_pools,
        72 connect_list_storage_pools, 73 connect_num_of_defined_storage_pools,
        74 connect_list_defined_storage_pools, 75 connect_find_storage_pool_sources,
        76 storage_pool_create_xml, 77 storage_pool_define_xml, 78 storage_pool_create,
        79 storage_pool_build, 80 storage_pool_destroy, 81 storage_pool_delete,
        82 storage_pool_undefine, 83 storage_pool_refresh, 84 storage_pool_lookup_by_name,
        85 storage_pool_lookup_by_uuid, 86 storage_pool_lookup_by_volume,
        87 storage_pool_get_info, 88 storage_pool_get_xml_desc, 89 storage_pool_get_autostart,
        90 storage_pool_set_autostart, 91 storage_pool_num_of_volumes,
        92 storage_pool_list_volumes, 93 storage_vol_create_xml, 94 storage_vol_delete,
        95 storage_vol_lookup_by_name, 96 storage_vol_lookup_by_key,
        97 storage_vol_lookup_by_path, 98 storage_vol_get_info, 99 storage_vol_get_xml_desc,
        100 storage_vol_get_path, 101 node_get_cells_free_memory, 102 node_get_free_memory,
        103 domain_block_peek, 104 domain_memory_peek, 105 connect_domain_event_register,
        106 connect_domain_event_deregister, 108 domain_migrate_prepare2,
        109 domain_migrate_finish2, 110 connect_get_uri, 111 node_num_of_devices,
        112 node_list_devices, 113 node_device_lookup_by_name, 114 node_device_get_xml_desc,
        115 node_device_get_parent, 116 node_device_num_of_caps, 117 node_device_list_caps,
        118 node_device_dettach, 119 node_device_re_attach, 120 node_device_reset,
        121 domain_get_security_label, 122 node_get_security_model, 123 node_device_create_xml,
        124 node_device_destroy, 125 storage_vol_create_xml_from, 126 connect_num_of_interfaces,
        127 connect_list_interfaces, 128 interface_lookup_by_name,
        129 interface_lookup_by_mac_string, 130 interface_get_xml_desc, 131 interface_define_xml,
        132 interface_undefine, 133 interface_create, 134 interface_destroy,
        135 connect_domain_xml_from_native, 136 connect_domain_xml_to_native,
        137 connect_num_of_defined_interfaces, 138 connect_list_defined_interfaces,
        139 connect_num_of_secrets, 140 connect_list_secrets, 141 secret_lookup_by_uuid,
        142 secret_define_xml, 143 secret_get_xml_desc, 144 secret_set_value,
        145 secret_get_value, 146 secret_undefine, 147 secret_lookup_by_usage,
        148 domain_migrate_prepare_tunnel, 149 connect_is_secure, 150 domain_is_active,
        151 domain_is_persistent, 152 network_is_active, 153 network_is_persistent,
        154 storage_pool_is_active, 155 storage_pool_is_persistent, 156 interface_is_active,
        157 connect_get_lib_version, 158 connect_compare_cpu, 159 domain_memory_stats,
        160 domain_attach_device_flags, 161 domain_detach_device_flags, 162 connect_baseline_cpu,
        163 domain_get_job_info, 164 domain_abort_job, 165 storage_vol_wipe,
        166 domain_migrate_set_max_downtime, 167 connect_domain_event_register_any,
        168 connect_domain_event_deregister_any, 174 domain_update_device_flags,
        175 nwfilter_lookup_by_name, 176 nwfilter_lookup_by_uuid, 177 nwfilter_get_xml_desc,
        178 connect_num_of_nwfilters, 179 connect_list_nwfilters, 180 nwfilter_define_xml,
        181 nwfilter_undefine, 182 domain_managed_save, 183 domain_has_managed_save_image,
        184 domain_managed_save_remove, 185 domain_snapshot_create_xml,
        186 domain_snapshot_get_xml_desc, 187 domain_snapshot_num, 188 domain_snapshot_list_names,
        189 domain_snapshot_lookup_by_name, 190 domain_has_current_snapshot,
        191 domain_snapshot_current, 192 domain_revert_to_snapshot, 193 domain_snapshot_delete,
        194 domain_get_block_info, 196 domain_create_with_flags, 197 domain_set_memory_parameters,
        198 domain_get_memory_parameters, 199 domain_set_vcpus_flags, 200 domain_get_vcpus_flags,
        201 domain_open_console, 202 domain_is_updated, 203 connect_get_sysinfo,
        204 domain_set_memory_flags, 205 domain_set_blkio_parameters,
        206 domain_get_blkio_parameters, 207 domain_migrate_set_max_speed, 208 storage_vol_upload,
        209 storage_vol_download, 210 domain_inject_nmi, 211 domain_screenshot,
        212 domain_get_state, 213 domain_migrate_begin3, 214 domain_migrate_prepare3,
        215 domain_migrate_prepare_tunnel3, 216 domain_migrate_perform3,
        217 domain_migrate_finish3, 218 domain_migrate_confirm3,
        219 domain_set_scheduler_parameters_flags, 220 interface_change_begin,
        221 interface_change_commit, 222 interface_change_rollback,
        223 domain_get_scheduler_parameters_flags, 225 domain_pin_vcpu_flags, 226 domain_send_key,
        227 node_get_cpu_stats, 228 node_get_memory_stats, 229 domain_get_control_info,
        230 domain_get_vcpu_pin_info, 231 domain_undefine_flags, 232 domain_save_flags,
        233 domain_restore_flags, 234 domain_destroy_flags, 235 domain_save_image_get_xml_desc,
        236 domain_save_image_define_xml, 237 domain_block_job_abort,
        238 domain_get_block_job_info, 239 domain_block_job_set_speed, 240 domain_block_pull,
        242 domain_migrate_get_max_speed, 243 domain_block_stats_flags,
        244 domain_snapshot_get_parent, 245 domain_reset, 246 domain_snapshot_num_children,
        247 domain_snapshot_list_children_names, 249 domain_open_graphics,
        250 node_suspend_for_duration, 251 domain_block_resize, 252 domain_set_block_io_tune,
        253 domain_get_block_io_tune, 254 domain_set_numa_parameters,
        255 domain_get_numa_parameters, 256 domain_set_interface_parameters,
        257 domain_get_interface_parameters, 258 domain_shutdown_flags,
        259 storage_vol_wipe_pattern, 260 storage_vol_resize, 261 domain_pm_suspend_for_duration,
        262 domain_get_cpu_stats, 263 domain_get_disk_errors, 264 domain_set_metadata,
        265 domain_get_metadata, 266 domain_block_rebase, 267 domain_pm_wakeup,
        271 domain_snapshot_is_current, 272 domain_snapshot_has_metadata,
        273 connect_list_all_domains, 274 domain_list_all_snapshots,
        275 domain_snapshot_list_all_children, 277 domain_get_hostname,
        278 domain_get_security_label_list, 279 domain_pin_emulator,
        280 domain_get_emulator_pin_info, 281 connect_list_all_storage_pools,
        282 storage_pool_list_all_volumes, 283 connect_list_all_networks,
        284 connect_list_all_interfaces, 285 connect_list_all_node_devices,
        286 connect_list_all_nwfilters, 287 connect_list_all_secrets,
        288 node_set_memory_parameters, 289 node_get_memory_parameters, 290 domain_block_commit,
        291 network_update, 293 node_get_cpu_map, 294 domain_fstrim,
        295 domain_send_process_signal, 296 domain_open_channel,
        297 node_device_lookup_scsi_host_by_wwn, 298 domain_get_job_stats,
        299 domain_migrate_get_compression_cache, 300 domain_migrate_set_compression_cache,
        301 node_device_detach_flags, 302 domain_migrate_begin3_params,
        303 domain_migrate_prepare3_params, 304 domain_migrate_prepare_tunnel3_params,
        305 domain_migrate_perform3_params, 306 domain_migrate_finish3_params,
        307 domain_migrate_confirm3_params, 308 domain_set_memory_stats_period,
        309 domain_create_xml_with_files, 310 domain_create_with_files,
        312 connect_get_cpu_model_names, 313 connect_network_event_register_any,
        314 connect_network_event_deregister_any, 316 connect_domain_event_callback_register_any,
        317 connect_domain_event_callback_deregister_any, 334 domain_core_dump_with_format,
        335 domain_fsfreeze, 336 domain_fsthaw, 337 domain_get_time, 338 domain_set_time,
        340 node_get_free_pages, 341 network_get_dhcp_leases, 342 connect_get_domain_capabilities,
        343 domain_open_graphics_fd, 344 connect_get_all_domain_stats, 345 domain_block_copy,
        347 node_alloc_pages, 349 domain_get_fsinfo, 350 domain_define_xml_flags,
        351 domain_get_iothread_info, 352 domain_pin_iothread, 353 domain_interface_addresses,
        355 domain_add_iothread, 356 domain_del_iothread, 357 domain_set_user_password,
        358 domain_rename, 360 connect_register_close_callback,
        361 connect_unregister_close_callback, 364 domain_migrate_start_post_copy,
        365 domain_get_perf_events, 366 domain_set_perf_events,
        368 connect_storage_pool_event_register_any,
        369 connect_storage_pool_event_deregister_any, 371 domain_get_guest_vcpus,
        372 domain_set_guest_vcpus, 374 connect_node_device_event_register_any,
        375 connect_node_device_event_deregister_any, 378 storage_vol_get_info_flags,
        380 connect_secret_event_register_any, 381 connect_secret_event_deregister_any,
        384 domain_set_vcpu, 386 domain_set_block_threshold, 387 domain_migrate_get_max_downtime,
        388 domain_managed_save_get_xml_desc, 389 domain_managed_save_define_xml,
        390 domain_set_lifecycle_action, 391 storage_pool_lookup_by_target_path,
        392 domain_detach_device_alias, 393 connect_compare_hypervisor_cpu,
        394 connect_baseline_hypervisor_cpu, 395 node_get_sev_info,
        396 domain_get_launch_security_info, 397 nwfilter_binding_lookup_by_port_dev,
        398 nwfilter_binding_get_xml_desc, 399 nwfilter_binding_create_xml,
        400 nwfilter_binding_delete, 401 connect_list_all_nwfilter_bindings,
        402 domain_set_iothread_params, 403 connect_get_storage_pool_capabilities,
        404 network_list_all_ports, 405 network_port_lookup_by_uuid, 406 network_port_create_xml,
        407 network_port_get_parameters, 408 network_port_set_parameters,
        409 network_port_get_xml_desc, 410 network_port_delete, 411 domain_checkpoint_create_xml,
        412 domain_checkpoint_get_xml_desc, 413 domain_list_all_checkpoints,
        414 domain_checkpoint_list_all_children, 415 domain_checkpoint_lookup_by_name,
        416 domain_checkpoint_get_parent, 417 domain_checkpoint_delete, 418 domain_get_guest_info,
        419 connect_set_identity, 420 domain_agent_set_response_timeout, 421 domain_backup_begin,
        422 domain_backup_get_xml_desc, 424 domain_authorized_ssh_keys_get,
        425 domain_authorized_ssh_keys_set, 426 domain_get_messages,
        427 domain_start_dirty_rate_calc, 428 node_device_define_xml, 429 node_device_undefine,
        430 node_device_create, 431 nwfilter_define_xml_flags, 432 network_define_xml_flags,
        433 node_device_get_autostart, 434 node_device_set_autostart,
        435 node_device_is_persistent, 436 node_device_is_active, 437 network_create_xml_flags,
        439 domain_set_launch_security_state, 440 domain_save_params, 441 domain_restore_params,
        442 domain_abort_job_flags, 443 domain_fd_associate,
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
    ($callback:ident) => {
        $callback! {
            program $crate::rpc::PROGRAM_QEMU;
            served {

            }
            refused {
            1 domain_monitor_command, 2 domain_attach, 3 domain_agent_command,
            4 connect_domain_monitor_event_register, 5 connect_domain_monitor_event_deregister,
            7 domain_monitor_command_with_files,
            }
            events {
            6 domain_monitor_event,
            }
        }
    };
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
