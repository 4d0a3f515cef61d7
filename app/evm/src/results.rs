//! Where an execution finds the results of inference.

use std::{collections::HashMap, sync::Arc};

use penstock_inference::{InferenceResult, RequestId};

/// A source of results.
pub trait Results {
    /// The result of a request, if the source has it.
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>>;
}

impl Results for HashMap<RequestId, Arc<InferenceResult>> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        HashMap::get(self, id).cloned()
    }
}
