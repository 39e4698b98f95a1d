//! Code compiled for what the processor has, chosen at run time.
//!
//! The build is for any processor of the architecture; what counts bits or compares many
//! numbers at once is then two to four times as slow as it could be. A [`Task`] is compiled
//! several times, and [`run`] calls the best of them that the processor can do.

/// Work that is worth it. `run` is to be `#[inline(always)]`, and all that it calls in its
/// loops too: only what is compiled into the function for a processor is compiled for it.
pub trait Task {
    /// What it comes to.
    type Out;
    /// Does it.
    fn run(self) -> Self::Out;
}

/// Does a task.
#[inline]
pub fn run<T: Task>(task: T) -> T::Out {
    #[cfg(target_arch = "x86_64")]
    {
        // Each is a look at a word that is read once; together they are one comparison.
        let has_v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        if has_v3
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the processor has all that the function is compiled for.
            return unsafe { x86_64_v4(task) };
        }
        if has_v3 {
            // SAFETY: the processor has all that the function is compiled for.
            return unsafe { x86_64_v3(task) };
        }
    }
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn x86_64_v3<T: Task>(task: T) -> T::Out {
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn x86_64_v4<T: Task>(task: T) -> T::Out {
    task.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bits([u64; 8]);

    impl Task for Bits {
        type Out = u32;
        #[inline(always)]
        fn run(self) -> u32 {
            self.0.iter().map(|n| n.count_ones()).sum()
        }
    }

    #[test]
    fn a_task_is_done_whatever_the_processor_has() {
        assert_eq!(run(Bits([1, 3, 7, 0, 0, 0, 0, u64::MAX])), 70);
    }
}
