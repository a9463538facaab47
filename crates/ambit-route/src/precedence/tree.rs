//! Prefixes by their segments.
//!
//! A request walks down as far as its segments are known, then up along the nodes that hold matches: the longest
//! prefix first. Nodes know their next such ancestor, so that neither a stack nor recursion is needed.

use std::collections::BTreeSet;

use super::Map;
use super::candidates::{Candidate, Candidates};
use crate::matcher::Asked;
use crate::request::{Headers, Hidden};

/// The tree; node 0 is the root, which stands for `/`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// While building: what will be put in order, by the number of its node.
    unordered: Vec<(usize, Candidate)>,
}

#[derive(Debug, Default)]
struct Node {
    children: Map<Box<str>, usize>,
    candidates: Candidates,
    parent: usize,
    /// Nearest ancestor with candidates.
    up: Option<usize>,
}

impl Tree {
    /// Adds a match under a prefix; one slash at its end is ignored, and one at its begin is not needed.
    pub(super) fn insert(&mut self, prefix: &str, candidate: Candidate) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let segments = prefix.split('/').filter(|_| !prefix.is_empty());
        let node = segments.fold(0, |node, segment| self.child(node, segment));
        self.unordered.push((node, candidate));
    }

    fn child(&mut self, parent: usize, segment: &str) -> usize {
        if let Some(child) = self.nodes[parent].children.get(segment) {
            return *child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node { parent, ..Node::default() });
        self.nodes[parent].children.insert(segment.into(), child);
        child
    }

    /// Orders the matches and links the nodes. Parents come before their children in the list.
    pub(super) fn finish(&mut self) {
        let mut unordered = std::mem::take(&mut self.unordered);
        unordered.sort_by_key(|(node, _)| *node);
        let mut unordered = unordered.into_iter().peekable();
        self.nodes.shrink_to_fit();
        for at in 0..self.nodes.len() {
            let own = std::iter::from_fn(|| unordered.next_if(|(node, _)| *node == at));
            self.nodes[at].candidates = Candidates::new(own.map(|(_, candidate)| candidate).collect());
            if at == 0 {
                continue;
            }
            let parent = self.nodes[at].parent;
            let holds = !self.nodes[parent].candidates.is_empty();
            self.nodes[at].up = if holds { Some(parent) } else { self.nodes[parent].up };
        }
    }

    /// The rule of the first match that agrees, of the longest prefix that has one.
    pub(super) fn first<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>) -> Option<u32> {
        self.places(asked.request.path).find_map(|candidates| candidates.first(asked))
    }

    /// As [`Candidates::depends_on`], of every prefix of the path.
    pub(super) fn depends_on<H: Headers + ?Sized>(
        &self,
        asked: &Asked<'_, H>,
        hidden: Hidden,
        read: &mut BTreeSet<String>,
    ) -> bool {
        self.places(asked.request.path).any(|candidates| candidates.depends_on(asked, hidden, read))
    }

    /// Whether every path leads to the same first match, or to none.
    pub(super) fn is_one(&self) -> bool {
        match &self.nodes[..] {
            [] => true,
            [root] => root.candidates.takes_all(),
            [_, _, ..] => false,
        }
    }

    /// The matches of each prefix of a path that has any, the longest first.
    fn places(&self, path: &str) -> impl Iterator<Item = &Candidates> {
        let start = path.strip_prefix('/').map(|path| {
            let mut at = 0;
            for segment in path.split('/') {
                let child = self.nodes.get(at).and_then(|node| node.children.get(segment));
                let Some(child) = child else { break };
                at = *child;
            }
            at
        });
        let all = &self.nodes;
        let node = move |at: usize| all.get(at);
        let nodes = std::iter::successors(start.and_then(node), move |held| held.up.and_then(node));
        nodes.map(|node| &node.candidates)
    }
}
