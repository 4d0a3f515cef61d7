//! Where an execution finds the results of inference.

use std::{collections::HashMap, sync::Arc};

use penstock_inference::{InferenceResult, RequestId};

/// A source of results.
pub trait Results {
    /// The result of a request, if the source has it.
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>>;
}

/// The source that has nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoResults;

impl Results for NoResults {
    fn get(&self, _: &RequestId) -> Option<Arc<InferenceResult>> {
        None
    }
}

impl Results for HashMap<RequestId, Arc<InferenceResult>> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        HashMap::get(self, id).cloned()
    }
}
