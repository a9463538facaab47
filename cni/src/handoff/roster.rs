//! Which pods each connected ztunnel has been given, and what to tell it next.
//!
//! A state machine without sockets: inputs are `handle_*`, the next message of a connection is [`Roster::poll`]. Its
//! rules are those of ZDS: a new connection gets everything and then `snapshot_sent`; later a pod is added only to the
//! newest connection and deleted from all; one message is under way at a time, and answers belong to messages by order.

use std::collections::{BTreeMap, VecDeque};

#[cfg(test)]
mod tests;

/// Names one connection; later connections have higher numbers.
pub type LineId = u64;

/// What ztunnel is told of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<N> {
    /// Name of the pod.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its network namespace; `None` if it is known but not at hand, so that a proxy that runs may go on.
    pub netns: Option<N>,
}

/// One message to a ztunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<N> {
    /// Serve this pod.
    Add(String, Entry<N>),
    /// Go on serving this pod if you do.
    Keep(String),
    /// Stop serving this pod.
    Del(String),
    /// Whatever was not named until now is to be stopped.
    SnapshotSent,
}

/// Where a pod stands with the newest ztunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// It serves the pod: its listeners are open.
    Held,
    /// It has said why it does not.
    Refused(String),
    /// It has not answered yet.
    Waiting,
    /// No ztunnel is connected.
    NoZtunnel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Add(String),
    Keep(String),
    Del(String),
    SnapshotSent,
}

impl Task {
    fn is_of(&self, uid: &str) -> bool {
        match self {
            Self::Add(of) | Self::Keep(of) | Self::Del(of) => of == uid,
            Self::SnapshotSent => false,
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Line {
    id: LineId,
    greeted: bool,
    /// Bounded by the pods of the node: at most one task a pod waits, and one end of the snapshot.
    queue: VecDeque<Task>,
    under_way: Option<Task>,
    /// What it answered for each pod it was given.
    standing: BTreeMap<String, Result<(), String>>,
    snapshot_done: bool,
}

impl Line {
    fn push(&mut self, uid: &str, task: Task) {
        self.queue.retain(|waiting| !waiting.is_of(uid));
        self.queue.push_back(task);
    }

    fn adding(&self, uid: &str) -> bool {
        let add = Task::Add(uid.to_owned());
        self.under_way.as_ref() == Some(&add) || self.queue.contains(&add)
    }

    /// Whether this ztunnel may be serving the pod.
    fn may_serve(&self, uid: &str) -> bool {
        // Before the end of its snapshot it may still hold pods of an earlier connection.
        !self.snapshot_done
            || self.standing.contains_key(uid)
            || self.under_way.as_ref().is_some_and(|t| t.is_of(uid))
    }
}

/// The pods and the connections.
#[derive(Debug)]
pub struct Roster<N> {
    entries: BTreeMap<String, Entry<N>>,
    lines: Vec<Line>,
}

impl<N> Default for Roster<N> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), lines: Vec::new() }
    }
}

impl<N: Clone + PartialEq> Roster<N> {
    /// A pod is to be served. Asks again after a refusal; a pod that is held as it is causes nothing.
    pub fn handle_set(&mut self, uid: &str, entry: Entry<N>) {
        let same = self.entries.get(uid) == Some(&entry);
        let at_hand = entry.netns.is_some();
        self.entries.insert(uid.to_owned(), entry);
        let Some(newest) = self.lines.iter_mut().rfind(|line| line.greeted) else { return };
        let held = newest.standing.get(uid) == Some(&Ok(()));
        if !at_hand || (same && (held || newest.adding(uid))) {
            return;
        }
        newest.standing.remove(uid);
        newest.push(uid, Task::Add(uid.to_owned()));
    }

    /// A pod is not to be served any more.
    pub fn handle_remove(&mut self, uid: &str) {
        if self.entries.remove(uid).is_none() {
            return;
        }
        for line in self.lines.iter_mut().filter(|line| line.greeted) {
            let serving = line.may_serve(uid);
            line.queue.retain(|waiting| !waiting.is_of(uid));
            if serving {
                line.queue.push_back(Task::Del(uid.to_owned()));
            }
            line.standing.remove(uid);
        }
    }

    /// A ztunnel has connected; it gets nothing before its hello.
    pub fn handle_connected(&mut self, id: LineId) {
        let (queue, standing) = (VecDeque::new(), BTreeMap::new());
        self.lines.push(Line { id, greeted: false, queue, under_way: None, standing, snapshot_done: false });
    }

    /// Its hello has come: the snapshot begins.
    pub fn handle_hello(&mut self, id: LineId) {
        let snapshot: VecDeque<Task> = self
            .entries
            .iter()
            .map(|(uid, entry)| match entry.netns {
                Some(_) => Task::Add(uid.clone()),
                None => Task::Keep(uid.clone()),
            })
            .chain([Task::SnapshotSent])
            .collect();
        if let Some(line) = self.line(id) {
            line.greeted = true;
            line.queue = snapshot;
        }
    }

    /// The message under way was answered.
    pub fn handle_answer(&mut self, id: LineId, answer: Result<(), String>) {
        let entries = &self.entries;
        let Some(line) = self.lines.iter_mut().find(|line| line.id == id) else { return };
        match line.under_way.take() {
            // Removed while it was under way: the deletion that waits behind it counts.
            Some(Task::Add(uid)) if entries.contains_key(&uid) => {
                line.standing.insert(uid, answer);
            }
            Some(Task::SnapshotSent) => line.snapshot_done = true,
            Some(Task::Add(_) | Task::Keep(_) | Task::Del(_)) | None => {}
        }
    }

    /// A connection has ended. What only that ztunnel was given goes to the newest of those that remain.
    pub fn handle_lost(&mut self, id: LineId) {
        self.lines.retain(|line| line.id != id);
        let Some(newest) = self.lines.iter_mut().rfind(|line| line.greeted) else { return };
        for (uid, entry) in &self.entries {
            let known = newest.standing.contains_key(uid) || newest.adding(uid);
            if entry.netns.is_some() && !known {
                newest.push(uid, Task::Add(uid.clone()));
            }
        }
    }

    /// The next message for a connection, if it waits for none.
    pub fn poll(&mut self, id: LineId) -> Option<Message<N>> {
        let entries = &self.entries;
        let line = self.lines.iter_mut().find(|line| line.id == id && line.under_way.is_none())?;
        while let Some(task) = line.queue.pop_front() {
            let message = match &task {
                Task::Add(uid) => match entries.get(uid) {
                    Some(entry) if entry.netns.is_some() => Message::Add(uid.clone(), entry.clone()),
                    // Its namespace went out of reach meanwhile; after the snapshot nothing can be said of it.
                    Some(_) if !line.snapshot_done => Message::Keep(uid.clone()),
                    Some(_) | None => continue,
                },
                Task::Keep(uid) if line.snapshot_done || !entries.contains_key(uid) => continue,
                Task::Keep(uid) => Message::Keep(uid.clone()),
                Task::Del(uid) => Message::Del(uid.clone()),
                Task::SnapshotSent => Message::SnapshotSent,
            };
            line.under_way = Some(task);
            return Some(message);
        }
        None
    }

    /// Where a pod stands with the newest ztunnel.
    pub fn holding(&self, uid: &str) -> Holding {
        let Some(newest) = self.lines.iter().rfind(|line| line.greeted) else { return Holding::NoZtunnel };
        match newest.standing.get(uid) {
            Some(Ok(())) => Holding::Held,
            Some(Err(why)) => Holding::Refused(why.clone()),
            None => Holding::Waiting,
        }
    }

    /// Whether some ztunnel still has to be told or to answer that the pod is gone.
    pub fn is_leaving(&self, uid: &str) -> bool {
        let del = Task::Del(uid.to_owned());
        self.lines.iter().any(|line| line.under_way.as_ref() == Some(&del) || line.queue.contains(&del))
    }

    /// Whether a ztunnel has the whole snapshot.
    pub fn is_served(&self) -> bool {
        self.lines.iter().any(|line| line.snapshot_done)
    }

    /// Connections that are open, in the order in which they came.
    pub fn lines(&self) -> Vec<LineId> {
        self.lines.iter().map(|line| line.id).collect()
    }

    /// How many pods are to be served.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no pod is to be served.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn line(&mut self, id: LineId) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.id == id)
    }
}
