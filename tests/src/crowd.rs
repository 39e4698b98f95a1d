//! Many namespaces with two devices each, whose other ends are in one more.

use std::fmt::Write as _;

use anyhow::Result;

use crate::netns::Netns;

/// The namespaces, and the one that has the other ends of their devices.
#[derive(Debug)]
pub struct Crowd {
    all: Vec<Netns>,
    far: Netns,
}

impl Crowd {
    /// Makes so many; before each, `go_on` is asked with how many there are.
    ///
    /// # Errors
    /// `ip` failed, or `go_on` did; what was made is removed again.
    pub fn new(count: u32, mut go_on: impl FnMut(u32) -> Result<()>) -> Result<Self> {
        let mut crowd = Self { all: Vec::new(), far: Netns::new("far")? };
        for n in 0..count {
            go_on(n)?;
            crowd.add(n)?;
        }
        Ok(crowd)
    }

    fn add(&mut self, n: u32) -> Result<()> {
        let netns = Netns::new(&format!("n{n}"))?;
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        let (mut near, mut peers) = (String::new(), String::new());
        for (side, net) in [("a", 0), ("b", 1)] {
            let far = self.far.name();
            writeln!(near, "link add {side}0 type veth peer {side}{n} netns {far}")?;
            writeln!(near, "link set {side}0 up\naddr add 10.{net}.0.1/24 dev {side}0")?;
            writeln!(peers, "link set {side}{n} up")?;
        }
        netns.ip_batch(&near)?;
        self.far.ip_batch(&peers)?;
        self.all.push(netns);
        Ok(())
    }

    /// The namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Netns> {
        self.all.iter()
    }

    /// Deletes them all, but not the one with the other ends, which is returned.
    ///
    /// # Errors
    /// One could not be deleted.
    pub fn delete_namespaces(self) -> Result<Netns> {
        self.all.into_iter().try_for_each(Netns::remove)?;
        Ok(self.far)
    }
}
