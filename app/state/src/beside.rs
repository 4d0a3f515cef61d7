//! Threads beside the chain, which no block waits for.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
};

use crate::StoreError;

/// A thread that does works one after another; of several that wait only the newest is done.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    works: Option<mpsc::Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Beside<T> {
    pub(crate) fn start(name: &str, work: impl Fn(T) + Send + 'static) -> Result<Self, StoreError> {
        let (works, receiver) = mpsc::channel();
        let run = move || {
            while let Ok(next) = receiver.recv() {
                work(receiver.try_iter().last().unwrap_or(next));
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(|error| StoreError::Database(format!("cannot start a thread: {error}")))?;
        Ok(Self { works: Some(works), thread: Some(thread) })
    }

    pub(crate) fn give(&self, work: T) {
        if let Some(works) = &self.works {
            works.send(work).ok();
        }
    }
}

/// Waits for what is being done.
impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        self.works = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
