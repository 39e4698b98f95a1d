//! What the operator says of a namespace, and its change while nsplane runs.

use std::sync::Arc;

use super::Control;
use super::compile::Which;
use super::devices::{unfit, wanted};
use super::namespaces::warn_of_bypass;
use crate::config;
use crate::id::NsId;
use crate::netns::Netns;

/// A namespace that is driven, by which rule.
#[derive(Clone, Debug)]
pub struct Driven {
    /// Its number.
    pub ns: NsId,
    /// Itself.
    pub netns: Arc<Netns>,
    /// The rule.
    pub rule: Arc<config::Namespace>,
}

/// What a rule would change in a namespace's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortChanges {
    /// Devices that would become ports.
    pub added: Vec<String>,
    /// Devices that would be ports no longer.
    pub removed: Vec<String>,
}

impl Control {
    /// All namespaces that are driven.
    #[must_use]
    pub fn driven(&self) -> Vec<Driven> {
        let all = self.namespaces.iter().map(|(i, n)| (self.ns_id(i), n));
        all.map(|(ns, n)| Driven { ns, netns: n.netns.clone(), rule: n.rule.clone() }).collect()
    }

    /// What `rule` would change.
    #[must_use]
    pub fn port_changes(&self, ns: NsId, rule: &config::Namespace) -> PortChanges {
        let Some(n) = self.namespace(ns) else { return PortChanges::default() };
        let is_port = |l: &&crate::netlink::Link| n.ports.contains_key(&l.ifindex);
        let added = wanted(rule, &n.mirror).filter(|l| !is_port(l));
        let chosen = |l: &crate::netlink::Link| {
            unfit(l).is_none() && super::devices::passed_over(rule, l).is_none()
        };
        let removed = n.mirror.links.values().filter(|l| is_port(l) && !chosen(l));
        PortChanges {
            added: added.map(|l| l.name.clone()).collect(),
            removed: removed.map(|l| l.name.clone()).collect(),
        }
    }

    /// From now on this rule counts. It takes effect on ports by [`Self::release`],
    /// [`Self::refresh`] and [`Self::grow`].
    pub fn set_rule(&mut self, ns: NsId, rule: Arc<config::Namespace>) {
        if let Some(n) = self.namespace_mut(ns) {
            if n.rule.bypass != rule.bypass {
                warn_of_bypass(&n.netns, &rule);
                n.stale = Which::ALL;
            }
            n.rule = rule;
            n.stale = Which::ALL;
            self.members_stale = true;
        }
    }

    /// The namespace has another name now: `netns` is the same one under it.
    pub fn set_name(&mut self, ns: NsId, netns: Arc<Netns>) {
        if let Some(n) = self.namespace_mut(ns).filter(|n| n.netns.cookie() == netns.cookie()) {
            n.netns = netns;
            // Members are stated by name.
            self.members_stale = true;
        }
    }
}
