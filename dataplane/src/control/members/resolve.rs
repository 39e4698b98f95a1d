//! In which of our namespaces the other end of a link lies.
//!
//! A link names it by a number of its own namespace. The kernel says which number a
//! namespace has in another, not the reverse; so those that have a device of that
//! number are asked for, and what was learned is kept until one of the two goes. The
//! number is never taken to mean more than that: a namespace is its cookie.

use hashbrown::HashMap;

use crate::control::Control;
use crate::control::error::told;
use crate::id::{NetnsCookie, NsId};
use crate::netlink::{Asker, Link};

/// What is known: by namespace and number there, the namespace meant.
#[derive(Debug, Default)]
pub(in crate::control) struct Known {
    numbers: HashMap<(NetnsCookie, i32), NetnsCookie>,
    /// Numbers that none of our namespaces had when it was last asked, and how many
    /// devices there were then.
    strangers: HashMap<(NetnsCookie, i32), usize>,
}

impl Known {
    pub(super) fn take(control: &mut Control) -> Self {
        std::mem::take(&mut control.known)
    }

    pub(super) fn give_back(self, control: &mut Control) {
        control.known = self;
    }

    /// Forgets all about a namespace. Its numbers, and those by which it was known, may be
    /// another's from now on.
    pub(in crate::control) fn forget(&mut self, gone: NetnsCookie) {
        self.numbers.retain(|(ns, _), of| *ns != gone && *of != gone);
        self.strangers.clear();
    }

    /// The namespace of the other end (or the lower device) of a link of `ns`.
    pub(super) fn other_end(&mut self, control: &Control, ns: NsId, link: &Link) -> Option<NsId> {
        let Some(number) = link.peer_nsid else { return Some(ns) };
        let here = control.namespace(ns)?.netns.cookie();
        let key = (here, number);
        if let Some(there) = self.numbers.get(&key) {
            return control.by_cookie(*there);
        }
        let peer = link.peer?;
        // Whose device it could be at all.
        let could: Vec<NsId> = control
            .namespaces
            .iter()
            .filter(|(_, n)| n.mirror.links.contains_key(&peer))
            .map(|(i, _)| control.ns_id(i))
            .collect();
        if self.strangers.get(&key) == Some(&could.len()) {
            return None;
        }
        match ask(control, ns, number, &could) {
            Some(found) => {
                self.numbers.insert(key, control.namespace(found)?.netns.cookie());
                Some(found)
            }
            None => {
                self.strangers.insert(key, could.len());
                None
            }
        }
    }
}

fn ask(control: &Control, ns: NsId, number: i32, could: &[NsId]) -> Option<NsId> {
    let netns = control.netns(ns)?;
    let mut asker = Asker::open(&netns).inspect_err(|e| failed(netns.name(), e)).ok()?;
    could.iter().copied().find(|other| {
        let Some(other) = control.netns(*other) else { return false };
        let asked = asker.nsid(&other).inspect_err(|e| failed(netns.name(), e));
        asked.is_ok_and(|id| id == Some(number))
    })
}

fn failed(netns: &str, e: &crate::netlink::Error) {
    tracing::warn!(netns, error = told(e), "whose a device is");
}
