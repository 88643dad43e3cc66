//! Deleting what no restart needs. The log is one for all partitions, so a segment goes when every partition permits it
//! and every message in it has been consumed. The mark says so first, durably: a segment that is gone without that is
//! missing.

use std::{fs, io, path::Path, sync::Arc};

use super::{
    checkpoint,
    disk::failed,
    mark::Mark,
    segment::Segment,
    state::{CheckpointFile, Shared},
};
use crate::error::JournalError;

/// Permits partition `partition` to restart from `at`, and deletes what that makes superfluous. Blocks on the disk.
pub(crate) fn delete_before(shared: &Shared, partition: u32, at: u64) -> Result<(), JournalError> {
    let _one_at_a_time = shared.trimming.lock().expect("no holder of the trimming lock panics");
    let Some(kept) = kept_checkpoint(shared, partition, at)? else { return Ok(()) };
    let superfluous = {
        let mut progress = shared.partition(partition).progress();
        progress.keep_from = progress.keep_from.max(kept + 1);
        let newest = progress.checkpoints.last().map_or(kept, |file| file.at);
        let (keep, drop): (Vec<_>, Vec<_>) =
            progress.checkpoints.drain(..).partition(|file| file.at == kept || file.at == newest);
        progress.checkpoints = keep;
        drop
    };
    for file in superfluous {
        remove(&file.path)?;
    }
    delete_segments(shared)
}

/// The newest checkpoint at or below `at` that is known to be whole.
fn kept_checkpoint(shared: &Shared, partition: u32, at: u64) -> Result<Option<u64>, JournalError> {
    loop {
        let candidate = {
            let progress = shared.partition(partition).progress();
            progress.checkpoints.iter().rev().find(|file| file.at <= at).cloned()
        };
        let Some(candidate) = candidate else { return Ok(None) };
        let whole = candidate.checked || is_whole(shared, partition, &candidate)?;
        let mut progress = shared.partition(partition).progress();
        if whole {
            if let Some(file) = progress.checkpoints.iter_mut().find(|file| file.at == candidate.at) {
                file.checked = true;
            }
            return Ok(Some(candidate.at));
        }
        progress.checkpoints.retain(|file| file.at != candidate.at);
    }
}

fn is_whole(shared: &Shared, partition: u32, file: &CheckpointFile) -> Result<bool, JournalError> {
    match checkpoint::read(file, shared.log_id, partition) {
        Ok(_) => Ok(true),
        Err(error @ JournalError::Damaged { .. }) => {
            tracing::warn!(partition, %error, "a damaged checkpoint does not count");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn delete_segments(shared: &Shared) -> Result<(), JournalError> {
    let segments: Vec<Arc<Segment>> = {
        let segments = shared.segments.read().expect("no holder of the segments panics");
        segments.values().cloned().collect()
    };
    let superfluous =
        segments.windows(2).take_while(|pair| is_superfluous(shared, &pair[0], &pair[1])).count();
    if superfluous == 0 {
        return Ok(());
    }
    let (gone, kept) = segments.split_at(superfluous);
    let first = &kept[0];
    {
        let mut file = shared.mark.lock().expect("no holder of the mark panics");
        let mark = Mark { first_segment: first.sequence, ..file.mark() };
        file.write(&shared.disk, mark).map_err(|source| failed("write", &shared.layout.mark, source))?;
        file.sync(&shared.disk);
    }
    shared.segments.write().expect("no holder of the segments panics").retain(|base, _| *base >= first.base);
    for (partition, stand) in shared.partitions.iter().zip(&first.stands) {
        partition.progress().cut(first.base, stand.next);
    }
    for segment in gone {
        remove(&segment.path)?;
    }
    Ok(())
}

/// Whether `segment`, which `next` follows, holds nothing that any partition needs.
fn is_superfluous(shared: &Shared, segment: &Segment, next: &Segment) -> bool {
    let permitted = shared
        .partitions
        .iter()
        .zip(&next.stands)
        .all(|(partition, stand)| stand.next <= partition.progress().keep_from);
    let messages = segment.messages.lock().expect("no holder of the list panics");
    permitted && messages.iter().all(|(to, last)| shared.partition(*to).progress().consumed.messages >= *last)
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, source)),
        _ => Ok(()),
    }
}
