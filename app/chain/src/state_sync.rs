//! Joining by state sync: a peer's snapshot becomes this node's state when everything in it is under the app hash that
//! CometBFT's light client verified.

use std::collections::BTreeSet;

use alloy_primitives::B256;
use penstock_abci::messages::{
    RequestApplySnapshotChunk, RequestOfferSnapshot, ResponseApplySnapshotChunk, ResponseOfferSnapshot,
    response_apply_snapshot_chunk::Result as Applied, response_offer_snapshot::Result as Offered,
};
use penstock_state::{Restore, RestoreError, clear};
use prost::Message;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::{
    Chain, ChainError,
    snapshots::{FORMAT, Manifest},
};

/// A snapshot that is being taken in.
#[derive(Debug)]
pub(crate) struct Incoming {
    manifest: Manifest,
    /// The next chunk.
    next: usize,
    /// Who gave chunks.
    senders: BTreeSet<String>,
    /// `None` when the state is here already.
    restore: Option<Restore>,
}

impl Chain {
    pub(crate) fn offer(&self, request: &RequestOfferSnapshot) -> Result<ResponseOfferSnapshot, ChainError> {
        let answer = |result: Offered| Ok(ResponseOfferSnapshot { result: result.into() });
        let Some(snapshot) = &request.snapshot else { return answer(Offered::Reject) };
        if snapshot.format != FORMAT {
            return answer(Offered::RejectFormat);
        }
        let manifest = Manifest::decode(snapshot.metadata.as_ref()).ok().filter(|manifest| {
            let names_it = Sha256::digest(&snapshot.metadata).as_slice() == snapshot.hash.as_ref();
            let fits = manifest.height == snapshot.height && manifest.chunks.len() == snapshot.chunks as usize;
            names_it && fits && !manifest.chunks.is_empty() && manifest.height > 0
        });
        let (Some(manifest), Ok(app_hash)) = (manifest, B256::try_from(request.app_hash.as_ref())) else {
            return answer(Offered::Reject);
        };
        let restore = match self.head.read().as_ref().map(|head| (head.number(), head.hash)) {
            None => Some(Restore::begin(self.state.lock().store().clone(), manifest.height, app_hash)?),
            // A crash came after the restoration and before CometBFT knew of it.
            Some(ours) if ours == (manifest.height, app_hash) => None,
            Some((height, _)) if height > manifest.height => {
                warn!(height, offered = manifest.height, "a snapshot before this node's state is not taken");
                return answer(Offered::Reject);
            }
            Some((height, _)) => {
                clear(&**self.state.lock().store())?;
                return Err(ChainError::Consensus(format!(
                    "CometBFT has no state and offers a snapshot of height {}, but this node was at height {height}: \
                     its state is removed, so that the next start can take the snapshot",
                    manifest.height
                )));
            }
        };
        info!(height = manifest.height, chunks = manifest.chunks.len(), "a snapshot is taken in");
        *self.incoming.lock() = Some(Incoming { manifest, next: 0, senders: BTreeSet::new(), restore });
        answer(Offered::Accept)
    }

    pub(crate) fn take_chunk(
        &self,
        request: &RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, ChainError> {
        let answer = |result: Applied| ResponseApplySnapshotChunk { result: result.into(), ..Default::default() };
        let mut slot = self.incoming.lock();
        let Some(mut incoming) = slot.take() else { return Ok(answer(Applied::Abort)) };
        let expected = incoming.manifest.chunks.get(incoming.next);
        if request.index as usize != incoming.next
            || expected.map(Vec::as_slice) != Some(&*Sha256::digest(&request.chunk))
        {
            warn!(index = request.index, sender = request.sender, "a chunk is not the snapshot's: it is fetched again");
            let refetch_chunks = vec![incoming.next as u32];
            *slot = Some(incoming);
            return Ok(ResponseApplySnapshotChunk {
                result: Applied::Retry.into(),
                refetch_chunks,
                reject_senders: vec![request.sender.clone()],
            });
        }
        let is_last = incoming.next + 1 == incoming.manifest.chunks.len();
        incoming.next += 1;
        incoming.senders.insert(request.sender.clone());
        let applied = incoming.restore.as_mut().map_or(Ok(()), |restore| restore.apply(&request.chunk));
        let outcome = match applied {
            Ok(()) if !is_last => {
                *slot = Some(incoming);
                return Ok(answer(Applied::Accept));
            }
            Ok(()) => incoming.restore.map(|restore| restore.finish(self.genesis_digest)).transpose(),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(None) => Ok(answer(Applied::Accept)),
            Ok(Some(())) => {
                let height = incoming.manifest.height;
                self.state.lock().reload(height)?;
                self.load_head(height)?;
                info!(height, "the state is the snapshot's");
                Ok(answer(Applied::Accept))
            }
            Err(RestoreError::Wrong(why)) => {
                warn!(why, "a snapshot is rejected");
                // Every chunk was the one that the snapshot names: whoever has it made it up, or believes who did.
                let reject_senders = incoming.senders.into_iter().collect();
                Ok(ResponseApplySnapshotChunk { reject_senders, ..answer(Applied::RejectSnapshot) })
            }
            Err(RestoreError::Store(error)) => Err(error.into()),
        }
    }
}
