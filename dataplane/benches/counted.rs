//! What a packet costs a worker, counted: instructions by Callgrind, allocations by itself.
//!
//! `cargo xtask count` runs it; alone, `cargo bench -p nsplane --bench counted -- LOAD` says
//! how many packets it did and fails where a packet cost an allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

mod loads;

use loads::{Load, NAMES};

/// The system's, with a count.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is the system allocator's; a count is kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for name in
        NAMES.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        let mut load = Load::new(name);
        // The first time things find their places.
        load.deliver();
        load.work();
        let mut allocations = 0;
        let times = if load.packets() < 1000 { 50 } else { 1 };
        for _ in 0..times {
            load.deliver();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            counted(&mut load);
            allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        let packets = times * load.packets();
        println!("{name} {packets}");
        load.deliver();
        assert_eq!(allocations, 0, "{name}: no packet costs an allocation");
    }
}

/// What is counted.
#[inline(never)]
fn counted(load: &mut Load) {
    load.work();
}
