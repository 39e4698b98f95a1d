//! What to do so that the namespaces which are driven are those that are meant.
//!
//! Pure: [`steps`] compares, the daemon carries out. What is let go is let go before
//! anything is taken in: it may be the same devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::config;
use crate::control::Driven;
use crate::id::NsId;
use crate::netns::{Chosen, FileId, Known, Origin};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// No longer meant, or gone.
    pub(super) let_go: Vec<NsId>,
    /// Known by another name now.
    pub(super) rename: Vec<(NsId, Origin)>,
    /// To be driven by another rule.
    pub(super) rule: Vec<(NsId, Arc<config::Namespace>)>,
    /// Meant, and not driven yet.
    pub(super) take_in: Vec<Chosen>,
}

/// Compares what is driven with what is meant of what was found.
pub(super) fn steps(
    driven: &[Driven],
    found: &BTreeMap<FileId, Vec<Known>>,
    chosen: &[Chosen],
    rules: &[Arc<config::Namespace>],
) -> Steps {
    let mut steps = Steps::default();
    let mut new: HashMap<FileId, &Chosen> = chosen.iter().map(|c| (c.id, c)).collect();
    for d in driven {
        let Some(meant) = new.remove(&d.netns.file_id()) else {
            steps.let_go.push(d.ns);
            continue;
        };
        let others = found.get(&meant.id).map(Vec::as_slice).unwrap_or_default();
        if !keeps_name(d.netns.origin(), &meant.known.origin, others) {
            steps.rename.push((d.ns, meant.known.origin.clone()));
        }
        if let Some(rule) = rules.get(meant.selector).filter(|rule| **rule != d.rule) {
            steps.rule.push((d.ns, rule.clone()));
        }
    }
    let is_new = |c: &&Chosen| new.contains_key(&c.id);
    steps.take_in = chosen.iter().filter(is_new).cloned().collect();
    steps
}

/// A name that still leads to the namespace stays, unless a real one came to one that
/// had none.
fn keeps_name(now: &Origin, best: &Origin, all: &[Known]) -> bool {
    let still = all.iter().any(|k| k.origin.label() == now.label());
    still && (now.is_name() || !best.is_name())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::netns::{Netns, Selector};

    fn known(origin: Origin) -> Known {
        Known { origin, path: PathBuf::new() }
    }

    fn named(name: &str) -> Known {
        known(Origin::Named(name.to_owned()))
    }

    fn process(pid: u32) -> Known {
        known(Origin::Process { pid, command: None })
    }

    fn rule(selector: &str) -> Arc<config::Namespace> {
        Arc::new(config::Namespace::of(selector.parse::<Selector>().unwrap()))
    }

    fn ns(index: u16) -> NsId {
        NsId { index, generation: 1 }
    }

    /// Namespaces of the process itself do: only their identity matters.
    fn driven(index: u16, origin: &Origin, rule: &Arc<config::Namespace>) -> (Driven, FileId) {
        let netns = Netns::private("steps", false).unwrap().known_as(origin).unwrap();
        let id = netns.file_id();
        (Driven { ns: ns(index), netns: Arc::new(netns), rule: rule.clone() }, id)
    }

    fn chosen(id: FileId, selector: usize, known: &Known) -> Chosen {
        Chosen { id, selector, known: known.clone() }
    }

    #[test]
    fn what_is_driven_becomes_what_is_meant() {
        if !crate::netns::tests::root("what_is_driven_becomes_what_is_meant") {
            return;
        }
        let rules = [rule("blue*"), rule("*")];
        let (gone, _) = driven(0, &named("gone").origin, &rules[1]);
        let (stays, at_stays) = driven(1, &named("red").origin, &rules[1]);
        let (other, at_other) = driven(2, &named("blue").origin, &rules[1]);
        let (_, at_new) = driven(3, &named("new").origin, &rules[1]);
        let meant = [
            chosen(at_stays, 1, &named("red")),
            chosen(at_other, 0, &named("blue")),
            chosen(at_new, 1, &named("new")),
        ];
        let found = meant.iter().map(|c| (c.id, vec![c.known.clone()])).collect();
        let seen = steps(&[gone, stays, other], &found, &meant, &rules);
        let wanted = Steps {
            let_go: vec![ns(0)],
            rename: vec![],
            rule: vec![(ns(2), rules[0].clone())],
            take_in: vec![meant[2].clone()],
        };
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_name_stays_while_it_is_there() {
        let (red, blue) = (named("red").origin, named("blue").origin);
        let pid = |n| process(n).origin;
        assert!(keeps_name(&red, &blue, &[named("blue"), named("red")]));
        assert!(!keeps_name(&red, &blue, &[named("blue")]));
        assert!(keeps_name(&pid(7), &pid(6), &[process(6), process(7)]));
        assert!(!keeps_name(&pid(7), &pid(6), &[process(6)]));
        assert!(!keeps_name(&pid(7), &red, &[named("red"), process(7)]));
    }
}
