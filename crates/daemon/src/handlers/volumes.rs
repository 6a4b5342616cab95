//! Storage volumes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use libvirt_compat::rpc::types::{StoragePool, StorageVol};
use libvirt_compat::{Code, Error, Result};

use super::{Call, at_most, check_flags, counted};
use crate::storage::{Pool, Volume};
use crate::streams::StreamBody;
use crate::world::World;

fn active_pool(call: &Call, pool: &StoragePool) -> Result<(Arc<World>, Pool)> {
    let world = call.world()?;
    let pool = world.pools.find(pool)?;
    pool.require_active()?;
    Ok((world, pool))
}

fn find(call: &Call, vol: &StorageVol) -> Result<(Arc<World>, Pool, Volume)> {
    let world = call.world()?;
    let (pool, volume) = world.pools.find_volume(vol)?;
    Ok((world, pool, volume))
}

pub fn storage_pool_num_of_volumes(call: &Call, pool: StoragePool) -> Result<i32> {
    Ok(active_pool(call, &pool)?.1.volumes.len() as i32)
}

pub fn storage_pool_list_volumes(
    call: &Call,
    pool: StoragePool,
    maximum: i32,
) -> Result<Vec<String>> {
    let names = active_pool(call, &pool)?.1.volumes.into_keys();
    Ok(at_most(names.collect(), maximum))
}

pub fn storage_pool_list_all_volumes(
    call: &Call,
    pool: StoragePool,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<StorageVol>, u32)> {
    check_flags(flags, 0, "storagePoolListAllVolumes")?;
    let (_, pool) = active_pool(call, &pool)?;
    let references = pool.volumes.values().map(Volume::reference);
    Ok(counted(references.collect(), need_results))
}

pub fn storage_vol_lookup_by_name(
    call: &Call,
    pool: StoragePool,
    name: String,
) -> Result<StorageVol> {
    Ok(active_pool(call, &pool)?.1.volume(&name)?.reference())
}

pub fn storage_vol_lookup_by_key(call: &Call, key: String) -> Result<StorageVol> {
    let found = call.world()?.pools.volume_by_path(&key);
    found.map(|(_, volume)| volume.reference()).ok_or_else(|| {
        Error::new(Code::NoStorageVol, format!("no storage vol with matching key {key}"))
    })
}

pub fn storage_vol_lookup_by_path(call: &Call, path: String) -> Result<StorageVol> {
    let found = call.world()?.pools.volume_by_path(&path);
    found.map(|(_, volume)| volume.reference()).ok_or_else(|| {
        Error::new(Code::NoStorageVol, format!("no storage vol with matching path '{path}'"))
    })
}

/// `VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA`, which virt-install asks for.
const CREATE_PREALLOC_METADATA: u32 = 1;

pub fn storage_vol_create_xml(
    call: &Call,
    pool: StoragePool,
    text: String,
    flags: u32,
) -> Result<StorageVol> {
    check_flags(flags, CREATE_PREALLOC_METADATA, "storageVolCreateXML")?;
    let (world, pool) = active_pool(call, &pool)?;
    Ok(world.pools.create_volume(&pool, &text, None, flags != 0)?.reference())
}

pub fn storage_vol_create_xml_from(
    call: &Call,
    pool: StoragePool,
    text: String,
    source: StorageVol,
    flags: u32,
) -> Result<StorageVol> {
    check_flags(flags, 0, "storageVolCreateXMLFrom")?;
    let (world, pool) = active_pool(call, &pool)?;
    let (_, source) = world.pools.find_volume(&source)?;
    Ok(world.pools.create_volume(&pool, &text, Some(&source), false)?.reference())
}

pub fn storage_vol_delete(call: &Call, vol: StorageVol, flags: u32) -> Result<()> {
    check_flags(flags, 0, "storageVolDelete")?;
    let (world, pool, volume) = find(call, &vol)?;
    world.pools.delete_volume(&pool, &volume)
}

pub fn storage_vol_get_xml_desc(call: &Call, vol: StorageVol, flags: u32) -> Result<String> {
    check_flags(flags, 0, "storageVolGetXMLDesc")?;
    let (world, pool, volume) = find(call, &vol)?;
    Ok(world.pools.reread_volume(&pool, &volume)?.document().to_xml())
}

pub fn storage_vol_get_info(call: &Call, vol: StorageVol) -> Result<(i32, u64, u64)> {
    storage_vol_get_info_flags(call, vol, 0)
}

/// `VIR_STORAGE_VOL_GET_PHYSICAL`.
const GET_PHYSICAL: u32 = 1;

pub fn storage_vol_get_info_flags(
    call: &Call,
    vol: StorageVol,
    flags: u32,
) -> Result<(i32, u64, u64)> {
    check_flags(flags, GET_PHYSICAL, "storageVolGetInfoFlags")?;
    let (world, pool, volume) = find(call, &vol)?;
    let volume = world.pools.reread_volume(&pool, &volume)?;
    let size = if flags & GET_PHYSICAL != 0 { volume.physical } else { volume.allocation };
    Ok((volume.kind(), volume.capacity, size))
}

pub fn storage_vol_get_path(call: &Call, vol: StorageVol) -> Result<String> {
    Ok(find(call, &vol)?.2.path)
}

/// `VIR_STORAGE_VOL_RESIZE_*`.
mod resize {
    pub const DELTA: u32 = 2;
    pub const SHRINK: u32 = 4;
}

pub fn storage_vol_resize(call: &Call, vol: StorageVol, size: u64, flags: u32) -> Result<()> {
    check_flags(flags, resize::DELTA | resize::SHRINK, "storageVolResize")?;
    let (world, pool, volume) = find(call, &vol)?;
    let shrink = flags & resize::SHRINK != 0;
    let wanted = match (flags & resize::DELTA != 0, shrink) {
        (false, _) => Some(size),
        (true, false) => volume.capacity.checked_add(size),
        (true, true) => volume.capacity.checked_sub(size),
    };
    let wanted = wanted.ok_or_else(|| Error::new(Code::Overflow, "capacity out of range"))?;
    if wanted < volume.allocation {
        let text = "can't shrink capacity below existing allocation";
        return Err(Error::new(Code::InvalidArg, text));
    }
    if wanted < volume.capacity && !shrink {
        let text =
            "Can't shrink capacity below current capacity unless shrink flag explicitly specified";
        return Err(Error::new(Code::InvalidArg, text));
    }
    world.pools.resize_volume(&pool, &volume, wanted)
}

fn open(volume: &Volume, write: bool, offset: u64) -> Result<File> {
    let failed =
        |error| crate::files::system(format!("cannot open volume '{}'", volume.path), &error);
    let mut file = OpenOptions::new().read(true).write(write).open(&volume.path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    Ok(file)
}

pub fn storage_vol_download(
    call: &Call,
    vol: StorageVol,
    offset: u64,
    length: u64,
    flags: u32,
) -> Result<()> {
    refuse_sparse(flags)?;
    let (_, _, volume) = find(call, &vol)?;
    let file = open(&volume, false, offset)?;
    let length = if length == 0 { u64::MAX } else { length };
    call.open_stream(StreamBody::Download(Box::new(file.take(length))));
    Ok(())
}

pub fn storage_vol_upload(
    call: &Call,
    vol: StorageVol,
    offset: u64,
    length: u64,
    flags: u32,
) -> Result<()> {
    refuse_sparse(flags)?;
    let (_, _, volume) = find(call, &vol)?;
    let file = open(&volume, true, offset)?;
    let length = if length == 0 { u64::MAX } else { length };
    call.open_stream(StreamBody::Upload(Box::new(Bounded { file, left: length })));
    Ok(())
}

/// A sparse stream sends holes from the daemon too, which `streams` does not.
fn refuse_sparse(flags: u32) -> Result<()> {
    if flags == 0 {
        return Ok(());
    }
    Err(Error::new(Code::ArgumentUnsupported, "sparse streams are not supported"))
}

/// A file that takes no more than was announced.
struct Bounded {
    file: File,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let length = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let written = self.file.write(&data[..length])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// Bytes that one write of zeros covers.
const WIPE_BYTES: usize = 1 << 20;

pub fn storage_vol_wipe(call: &Call, vol: StorageVol, flags: u32) -> Result<()> {
    storage_vol_wipe_pattern(call, vol, 0, flags)
}

pub fn storage_vol_wipe_pattern(
    call: &Call,
    vol: StorageVol,
    algorithm: u32,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 0, "storageVolWipePattern")?;
    if algorithm != 0 {
        let text = format!("wiping algorithm {algorithm} is not supported, only zero is");
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let (_, _, volume) = find(call, &vol)?;
    let failed =
        |error| crate::files::system(format!("cannot wipe volume '{}'", volume.path), &error);
    let mut file = open(&volume, true, 0)?;
    let mut left = file.metadata().map_err(failed)?.len();
    let zeros = vec![0; WIPE_BYTES];
    while left > 0 {
        let length = left.min(WIPE_BYTES as u64);
        file.write_all(&zeros[..length as usize]).map_err(failed)?;
        left -= length;
    }
    file.sync_data().map_err(failed)
}
