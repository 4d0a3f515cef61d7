//! Where an execution finds the results of inference.

use std::{collections::HashMap, sync::Arc};

use penstock_inference::{InferenceRequest, InferenceResult, RequestId};

/// A source of results.
pub trait Results {
    /// The result of a request, if the source has it.
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>>;

    /// The result of a request that an execution makes, which a source may compute.
    fn answer(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Arc<InferenceResult>> {
        let _ = (request, ops);
        self.get(id)
    }
}

impl Results for HashMap<RequestId, Arc<InferenceResult>> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        HashMap::get(self, id).cloned()
    }
}
