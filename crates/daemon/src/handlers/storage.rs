//! Storage pools.

use libvirt_compat::rpc::types::{StoragePool, StorageVol};
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Call, at_most, check_flags, counted};
use crate::storage::Pool;

/// `VIR_CONNECT_LIST_STORAGE_POOLS_*`: pairs, then one bit per kind.
mod list {
    pub const INACTIVE: u32 = 1;
    pub const ACTIVE: u32 = 2;
    pub const PERSISTENT: u32 = 4;
    pub const TRANSIENT: u32 = 8;
    pub const AUTOSTART: u32 = 16;
    pub const NO_AUTOSTART: u32 = 32;
    pub const KINDS: [&str; 15] = [
        "dir",
        "fs",
        "netfs",
        "logical",
        "disk",
        "iscsi",
        "scsi",
        "mpath",
        "rbd",
        "sheepdog",
        "gluster",
        "zfs",
        "vstorage",
        "iscsi-direct",
        "linstor",
    ];
    pub const KINDS_SHIFT: u32 = 6;
    pub const KNOWN: u32 = (1 << (KINDS_SHIFT as usize + KINDS.len())) - 1;
}

fn select(call: &Call, flags: u32) -> Result<Vec<StoragePool>> {
    let matches = |own: u32, group: u32| flags & group == 0 || flags & own != 0;
    let all = call.world()?.pools.all();
    let chosen = all.iter().filter(|pool| {
        let pick = |yes: bool, one: u32, other: u32| if yes { one } else { other };
        let kind = list::KINDS.iter().position(|kind| *kind == pool.kind).unwrap_or(0);
        matches(pick(pool.active, list::ACTIVE, list::INACTIVE), 3)
            && matches(pick(pool.persistent, list::PERSISTENT, list::TRANSIENT), 12)
            && matches(pick(pool.autostart, list::AUTOSTART, list::NO_AUTOSTART), 48)
            && matches(1 << (kind as u32 + list::KINDS_SHIFT), !63)
    });
    Ok(chosen.map(Pool::reference).collect())
}

fn names(call: &Call, flags: u32) -> Result<Vec<String>> {
    Ok(select(call, flags)?.into_iter().map(|pool| pool.name).collect())
}

pub fn connect_list_all_storage_pools(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<StoragePool>, u32)> {
    check_flags(flags, list::KNOWN, "storageConnectListAllStoragePools")?;
    Ok(counted(select(call, flags)?, need_results))
}

pub fn connect_num_of_storage_pools(call: &Call) -> Result<i32> {
    Ok(select(call, list::ACTIVE)?.len() as i32)
}

pub fn connect_list_storage_pools(call: &Call, maximum: i32) -> Result<Vec<String>> {
    Ok(at_most(names(call, list::ACTIVE)?, maximum))
}

pub fn connect_num_of_defined_storage_pools(call: &Call) -> Result<i32> {
    Ok(select(call, list::INACTIVE)?.len() as i32)
}

pub fn connect_list_defined_storage_pools(call: &Call, maximum: i32) -> Result<Vec<String>> {
    Ok(at_most(names(call, list::INACTIVE)?, maximum))
}

pub fn storage_pool_lookup_by_name(call: &Call, name: String) -> Result<StoragePool> {
    Ok(call.world()?.pools.by_name(&name)?.reference())
}

pub fn storage_pool_lookup_by_uuid(call: &Call, uuid: Uuid) -> Result<StoragePool> {
    Ok(call.world()?.pools.by_uuid(uuid)?.reference())
}

pub fn storage_pool_lookup_by_volume(call: &Call, vol: StorageVol) -> Result<StoragePool> {
    Ok(call.world()?.pools.by_name(&vol.pool)?.reference())
}

pub fn storage_pool_lookup_by_target_path(call: &Call, path: String) -> Result<StoragePool> {
    let pool = call.world()?.pools.by_target(path.trim_end_matches('/')).ok_or_else(|| {
        Error::new(
            Code::NoStoragePool,
            format!("no storage pool with matching target path '{path}'"),
        )
    })?;
    Ok(pool.reference())
}

pub fn storage_pool_define_xml(call: &Call, text: String, flags: u32) -> Result<StoragePool> {
    check_flags(flags, 0, "storagePoolDefineXML")?;
    let world = call.world()?;
    Ok(world.pools.define(&world, &text, false)?.reference())
}

/// `VIR_STORAGE_POOL_CREATE_WITH_BUILD`.
const CREATE_WITH_BUILD: u32 = 1;

pub fn storage_pool_create_xml(call: &Call, text: String, flags: u32) -> Result<StoragePool> {
    check_flags(flags, CREATE_WITH_BUILD, "storagePoolCreateXML")?;
    let world = call.world()?;
    if flags & CREATE_WITH_BUILD != 0 {
        world.pools.build(&world, &Pool::parse(&text)?)?;
    }
    Ok(world.pools.define(&world, &text, true)?.reference())
}

pub fn storage_pool_build(call: &Call, pool: StoragePool, flags: u32) -> Result<()> {
    check_flags(flags, 0, "storagePoolBuild")?;
    let world = call.world()?;
    world.pools.build(&world, &world.pools.find(&pool)?)
}

pub fn storage_pool_create(call: &Call, pool: StoragePool, flags: u32) -> Result<()> {
    check_flags(flags, CREATE_WITH_BUILD, "storagePoolCreate")?;
    let world = call.world()?;
    let pool = world.pools.find(&pool)?;
    if flags & CREATE_WITH_BUILD != 0 {
        world.pools.build(&world, &pool)?;
    }
    world.pools.start(&world, &pool)
}

pub fn storage_pool_destroy(call: &Call, pool: StoragePool) -> Result<()> {
    let world = call.world()?;
    world.pools.stop(&world, &world.pools.find(&pool)?)
}

pub fn storage_pool_delete(call: &Call, pool: StoragePool, flags: u32) -> Result<()> {
    check_flags(flags, 0, "storagePoolDelete")?;
    let world = call.world()?;
    world.pools.delete(&world, &world.pools.find(&pool)?)
}

pub fn storage_pool_undefine(call: &Call, pool: StoragePool) -> Result<()> {
    let world = call.world()?;
    world.pools.undefine(&world, &world.pools.find(&pool)?)
}

pub fn storage_pool_refresh(call: &Call, pool: StoragePool, flags: u32) -> Result<()> {
    check_flags(flags, 0, "storagePoolRefresh")?;
    let world = call.world()?;
    world.pools.refresh(&world, &world.pools.find(&pool)?)
}

/// `VIR_STORAGE_XML_INACTIVE`.
const XML_INACTIVE: u32 = 1;

pub fn storage_pool_get_xml_desc(call: &Call, pool: StoragePool, flags: u32) -> Result<String> {
    check_flags(flags, XML_INACTIVE, "storagePoolGetXMLDesc")?;
    let mut pool = call.world()?.pools.find(&pool)?;
    if flags & XML_INACTIVE != 0 {
        pool.info = crate::storage::PoolInfo::default();
        pool.active = false;
    }
    Ok(pool.document().to_xml())
}

/// Inactive is 0, running is 2.
pub fn storage_pool_get_info(call: &Call, pool: StoragePool) -> Result<(u32, u64, u64, u64)> {
    let pool = call.world()?.pools.find(&pool)?;
    let info = pool.info;
    let state = if pool.active { 2 } else { 0 };
    Ok((state, info.capacity, info.allocation, info.available))
}

pub fn storage_pool_get_autostart(call: &Call, pool: StoragePool) -> Result<i32> {
    Ok(i32::from(call.world()?.pools.find(&pool)?.autostart))
}

pub fn storage_pool_set_autostart(call: &Call, pool: StoragePool, autostart: i32) -> Result<()> {
    let world = call.world()?;
    world.pools.set_autostart(&world, &world.pools.find(&pool)?, autostart != 0)
}

pub fn storage_pool_is_active(call: &Call, pool: StoragePool) -> Result<i32> {
    Ok(i32::from(call.world()?.pools.find(&pool)?.active))
}

pub fn storage_pool_is_persistent(call: &Call, pool: StoragePool) -> Result<i32> {
    Ok(i32::from(call.world()?.pools.find(&pool)?.persistent))
}

pub fn connect_find_storage_pool_sources(
    call: &Call,
    kind: String,
    src_spec: Option<String>,
    _flags: u32,
) -> Result<String> {
    call.world()?.pools.sources(&kind, src_spec.as_deref())
}
