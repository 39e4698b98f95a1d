//! The room's files again, over loom, which tries every interleaving.
#![expect(clippy::duplicate_mod, reason = "the same code, over other primitives")]
#![expect(unreachable_pub, reason = "public in the room, private here")]

mod prim {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(super) use loom::sync::{Arc, Mutex};
    pub(super) use std::sync::PoisonError;
}
#[path = "doorbell.rs"]
mod doorbell;
#[path = "publish.rs"]
mod publish;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

#[test]
fn a_reader_sees_whole_values_in_order_and_never_frees_one() {
    struct Value {
        pair: (u64, u64),
        publisher: thread::ThreadId,
    }
    impl Drop for Value {
        fn drop(&mut self) {
            assert_eq!(thread::current().id(), self.publisher, "freed on a reader's thread");
        }
    }
    loom::model(|| {
        let publisher = thread::current().id();
        let value = |n| Arc::new(Value { pair: (n, n), publisher });
        let mut writer = publish::Publisher::new(value(0));
        let mut reader = writer.reader();
        let read = thread::spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                reader.refresh();
                let (a, b) = reader.get().pair;
                assert_eq!(a, b);
                assert!(a >= last);
                last = a;
            }
        });
        writer.publish(value(1));
        writer.publish(value(2));
        writer.collect();
        read.join().unwrap();
        writer.collect();
        assert_eq!(writer.retired(), 0);
    });
}

#[test]
fn a_sleeper_sees_the_push_or_is_woken() {
    loom::model(|| {
        let woken = Arc::new(AtomicBool::new(false));
        let work = Arc::new(AtomicUsize::new(0));
        let bell = Arc::new(doorbell::Doorbell::new({
            let woken = Arc::clone(&woken);
            Box::new(move || woken.store(true, Ordering::Relaxed))
        }));
        let producer = thread::spawn({
            let (work, bell) = (Arc::clone(&work), Arc::clone(&bell));
            move || {
                work.store(1, Ordering::Relaxed);
                bell.ring();
            }
        });
        bell.arm();
        let seen = work.load(Ordering::Relaxed) == 1;
        if seen {
            bell.disarm();
        }
        producer.join().unwrap();
        assert!(seen || woken.load(Ordering::Relaxed), "asleep with work to do");
    });
}
