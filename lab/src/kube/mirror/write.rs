//! What is to be written to one object, and what of it is on its way. Values only.

use ambit_manifest::ObjectKey;
use serde_json::Value;

use crate::kube::delta::combine;

/// What is to be done to an object.
#[derive(Debug, Default)]
pub(super) struct Write {
    /// The object it is meant for, and no later one of its name.
    pub(super) uid: String,
    /// On its way to the server.
    pub(super) sent: Option<Value>,
    /// To be sent after that.
    pub(super) waiting: Option<Value>,
    /// Whether it is to be removed at once.
    pub(super) remove: bool,
    /// Whether a task sees to it.
    pub(super) busy: bool,
}

/// What a task has to send.
#[derive(Debug, Clone)]
pub(in crate::kube) struct Job {
    /// The object.
    pub(in crate::kube) key: ObjectKey,
    /// Its uid.
    pub(in crate::kube) uid: String,
    /// What to do.
    pub(in crate::kube) what: What,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(in crate::kube) enum What {
    /// A patch.
    Patch(Value),
    /// The end of the object, at once.
    Remove,
}

/// What became of a job.
#[derive(Debug)]
pub(in crate::kube) enum Outcome {
    /// The server answered with the object as it is now.
    Now(Value),
    /// The server did it and showed no object.
    Done,
    /// It will never do it.
    Dropped,
}

impl Write {
    /// All that is to be sent now.
    pub(super) fn job(&mut self, key: &ObjectKey) -> Job {
        let (key, uid) = (key.clone(), self.uid.clone());
        if self.remove {
            (self.sent, self.waiting) = (None, None);
            return Job { key, uid, what: What::Remove };
        }
        if let Some(waiting) = self.waiting.take() {
            match &mut self.sent {
                Some(sent) => combine(sent, &waiting),
                None => self.sent = Some(waiting),
            }
        }
        Job { key, uid, what: What::Patch(self.sent.clone().unwrap_or_default()) }
    }
}
