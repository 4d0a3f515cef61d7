//! The embedded driver's block store: an append-only file of decided blocks.
//!
//! A record is its length (u32), the CRC-32 of its bytes (u32), both little-endian, and a protobuf message. A
//! block is synced to disk before it is finalized; a record that a crash left half-written is cut
//! off when the log is opened.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use prost::Message;
use tendermint_proto::google::protobuf::Timestamp;

/// A decided block.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LoggedBlock {
    /// Height.
    #[prost(int64, tag = "1")]
    pub height: i64,
    /// Consensus time.
    #[prost(message, optional, tag = "2")]
    pub time: Option<Timestamp>,
    /// Address of the proposer.
    #[prost(bytes = "vec", tag = "3")]
    pub proposer_address: Vec<u8>,
    /// Transactions.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub txs: Vec<prost::bytes::Bytes>,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system says so.
    #[error("block log {path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A record before the last one is not what was written.
    #[error("block log {path}: the record of height {height} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record.
        height: u64,
    },
}

/// The log of the blocks from height 1 on.
#[derive(Debug)]
pub struct BlockLog {
    path: PathBuf,
    file: File,
    /// Offset of each record; the last entry is the end of the file.
    offsets: Vec<u64>,
}

const FRAME: u64 = 8;

impl BlockLog {
    /// Opens a log, or begins one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let error = |reason| LogError::Io { path: path.to_owned(), reason };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(error)?;
        if let Some(folder) = path.parent() {
            // The file's entry in its folder must survive a power cut, too.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(error)?;
        }
        let length = file.metadata().map_err(error)?.len();
        let mut offsets = vec![0];
        let mut at = 0;
        while at + FRAME <= length {
            let mut size = [0; 4];
            file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut size)).map_err(error)?;
            let size = u32::from_le_bytes(size);
            let end = at + FRAME + u64::from(size);
            // A power cut may leave zeros behind the end: a block is never empty.
            if size == 0 || end > length {
                break;
            }
            offsets.push(end);
            at = end;
        }
        let mut log = Self { path: path.to_owned(), file, offsets };
        if log.height() > 0 && log.read(log.height()).is_err() {
            log.offsets.pop();
        }
        let end = log.offsets.last().copied().unwrap_or_default();
        if end < length {
            log.file.set_len(end).and_then(|()| log.file.sync_all()).map_err(error)?;
        }
        Ok(log)
    }

    /// Height of the last block; 0 when there is none.
    pub fn height(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    /// The block of a height from 1 to [`Self::height`].
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read(&mut self, height: u64) -> Result<LoggedBlock, LogError> {
        let damaged = || LogError::Damaged { path: self.path.clone(), height };
        let index = usize::try_from(height).map_err(|_| damaged())?;
        let start = *index.checked_sub(1).and_then(|i| self.offsets.get(i)).ok_or_else(damaged)?;
        let end = *self.offsets.get(index).ok_or_else(damaged)?;
        let mut record = vec![0; (end - start) as usize];
        let result = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut record));
        result.map_err(|reason| LogError::Io { path: self.path.clone(), reason })?;
        let (frame, body) = record.split_at(FRAME as usize);
        if frame[4..] != crc32fast::hash(body).to_le_bytes() {
            return Err(damaged());
        }
        let block = LoggedBlock::decode(body).map_err(|_| damaged())?;
        if block.height as u64 == height { Ok(block) } else { Err(damaged()) }
    }

    /// Appends the block of the next height; when this returns it is on the disk.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn append(&mut self, block: &LoggedBlock) -> Result<(), LogError> {
        let body = block.encode_to_vec();
        let mut record = Vec::with_capacity(body.len() + FRAME as usize);
        record.extend_from_slice(&(body.len() as u32).to_le_bytes());
        record.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        record.extend_from_slice(&body);
        let result = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        result.map_err(|reason| LogError::Io { path: self.path.clone(), reason })?;
        let end = self.offsets.last().copied().unwrap_or_default() + record.len() as u64;
        self.offsets.push(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: i64) -> LoggedBlock {
        LoggedBlock { height, txs: vec![vec![height as u8; 100].into()], ..Default::default() }
    }

    #[test]
    fn a_record_cut_at_any_byte_is_dropped_and_those_before_it_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = BlockLog::open(&path).unwrap();
        (1..=3).for_each(|height| log.append(&block(height)).unwrap());
        let whole = std::fs::read(&path).unwrap();
        let two = log.offsets[2] as usize;
        for end in two..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let mut log = BlockLog::open(&path).unwrap();
            assert_eq!(log.height(), 2, "cut at {end}");
            assert_eq!(log.read(2).unwrap(), block(2));
            log.append(&block(3)).unwrap();
            assert_eq!(BlockLog::open(&path).unwrap().read(3).unwrap(), block(3));
        }
    }

    #[test]
    fn zeros_behind_the_end_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        BlockLog::open(&path).unwrap().append(&block(1)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0; 100]);
        std::fs::write(&path, &bytes).unwrap();
        let mut log = BlockLog::open(&path).unwrap();
        assert_eq!(log.height(), 1);
        log.append(&block(2)).unwrap();
        assert_eq!(BlockLog::open(&path).unwrap().read(2).unwrap(), block(2));
    }

    #[test]
    fn a_damaged_record_in_the_middle_is_reported_and_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = BlockLog::open(&path).unwrap();
        (1..=3).for_each(|height| log.append(&block(height)).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = log.offsets[1] as usize + 20;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut log = BlockLog::open(&path).unwrap();
        assert_eq!(log.height(), 3);
        assert!(matches!(log.read(2), Err(LogError::Damaged { height: 2, .. })));
    }
}
