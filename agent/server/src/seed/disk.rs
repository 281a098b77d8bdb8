//! The file operations that the seed's durability depends on, as a trait so that tests can make them fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

pub(super) trait Disk: Send + 'static {
    /// Writes all of `bytes` at `offset`; on an error any part of them may have been written.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's contents durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Makes contents and metadata durable; for a folder, its entries.
    fn sync_all(&self, file: &File) -> io::Result<()>;
}

pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
}
