//! What of nftables acts upon forwarded packets: base chains that they meet, flowtables, and
//! where there are none of these, what makes the kernel track connections.

use std::io;
use std::ops::ControlFlow;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::decode::{Message, hook, tracking};
use super::dump::{Dumper, Failure};
use super::event::{Event, Family};
use super::hook::{Hook, HookSource};
use super::{Error, request, watch};
use crate::netns::Netns;

/// Rules, sets or objects that are read in search of what asks for tracking; of more it is
/// taken that one does. So many rules take 10 to 20 ms, in which nothing else is done.
const MOST: usize = 2_000;

/// What there is, as it is now.
#[derive(Debug)]
pub(super) struct State {
    /// Chains and flowtables.
    chains: Vec<Hook>,
    /// What asks for tracking. Empty where chains keep both families with the kernel: then
    /// nobody looked.
    tracking: Vec<Hook>,
    /// By a notice: after it this may be another state.
    pub(super) changes: fn(&Message<'_>) -> bool,
}

impl State {
    /// As events.
    pub(super) fn events(self) -> [Event; 2] {
        [
            Event::Hooks(HookSource::Nftables, self.chains),
            Event::Hooks(HookSource::Conntrack, self.tracking),
        ]
    }

    /// What the kernel has, but will not tell, may be anything. That may have been a
    /// rule as well: with any change it is asked again.
    fn unknown(failure: Failure) -> Self {
        let chains = vec![watch::unknown(HookSource::Nftables, failure)];
        Self { chains, tracking: Vec::new(), changes: |_| true }
    }
}

/// Reads it.
pub(super) fn read(ns: &Netns) -> Result<State, Error> {
    let mut chains = Vec::new();
    let asked = watch::ask(ns, NETLINK_NETFILTER, |dumper| {
        dumper.steady(request::chains, &mut chains, |m, out| {
            if let Some(hook) = hook::chain(m) {
                hook.join(out);
            }
        })?;
        dumper.steady(request::flowtables, &mut chains, |m, out| {
            if let Some(hook) = hook::flowtable(m) {
                hook.join(out);
            }
        })?;
        look_for_tracking(dumper, &chains)
    })?;
    // nfnetlink's word for a part that is not there is "invalid".
    let absent = |e: &io::Error| watch::absent(e) || e.raw_os_error() == Some(libc::EINVAL);
    let (tracking, changes) = match asked {
        Ok(found) => found,
        Err(Failure::Refused(e)) if absent(&e) => (Vec::new(), tracking::may_begin as _),
        Err(failure) => return Ok(State::unknown(failure)),
    };
    Ok(State { chains, tracking, changes })
}

type Found = (Vec<Hook>, fn(&Message<'_>) -> bool);

/// What asks for tracking, one for each family that `chains` leave to nsplane; and which
/// notices may mean another result.
fn look_for_tracking(dumper: &mut Dumper, chains: &[Hook]) -> Result<Found, Failure> {
    let mut found: Vec<Hook> = Vec::new();
    if is_done(chains, &found) {
        return Ok((found, tracking::changes_chains));
    }
    let mut too_many = false;
    let requests = [request::nft_objects, request::nft_sets, request::nft_rules];
    for request in requests {
        dumper.until(request, &mut found, |before, m, found| {
            too_many = before >= MOST;
            let hook = if too_many { Some(uncounted()) } else { tracking::asks(m) };
            let Some(hook) = hook.filter(|h| is_news(h, chains)) else {
                return ControlFlow::Continue(());
            };
            hook.join(found);
            match is_done(chains, found) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if is_done(chains, &found) {
            break;
        }
    }
    let changes = match (too_many, found.is_empty()) {
        (true, _) => tracking::removes,
        (false, true) => tracking::may_begin,
        (false, false) => tracking::may_change,
    };
    Ok((found, changes))
}

fn uncounted() -> Hook {
    let name = format!("nftables with over {MOST} rules, sets or objects, too many to read");
    Hook { family: None, name, on_device: false }
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// It concerns a family that chains do not keep with the kernel anyway.
fn is_news(hook: &Hook, chains: &[Hook]) -> bool {
    BOTH.into_iter().any(|f| hook.meets(f) && !chains.iter().any(|c| c.meets(f)))
}

/// Both families stay with the kernel.
fn is_done(chains: &[Hook], found: &[Hook]) -> bool {
    BOTH.into_iter().all(|f| chains.iter().chain(found).any(|h| h.meets(f)))
}
