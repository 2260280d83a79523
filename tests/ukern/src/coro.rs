//! Stacks and the switch between them.
//!
//! A thread of the kernel is a stack of its own on the one host thread that booted it. So
//! exactly one runs at a time, a switch costs nanoseconds, `%gs` is set once, and a thread
//! whose stack holds module frames (which have no unwind tables) can be dropped after a panic.

/// Usable bytes of a stack: module code needs 16 KB, a test's closure in a debug build much more.
const STACK: usize = 1 << 20;
const GUARD: usize = 4096;

/// A stack with an unmapped page below it.
pub(crate) struct Stack {
    base: usize,
}

impl Stack {
    /// Usable bytes.
    pub(crate) const SIZE: usize = STACK;

    pub(crate) fn new() -> Stack {
        // SAFETY: a fresh anonymous mapping.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK + GUARD,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        assert_ne!(p, libc::MAP_FAILED, "no memory for a stack");
        // SAFETY: the first page of the mapping just made.
        let rc = unsafe { libc::mprotect(p, GUARD, libc::PROT_NONE) };
        assert_eq!(rc, 0, "guard page");
        Stack { base: p as usize }
    }

    pub(crate) fn top(&self) -> usize {
        self.base + GUARD + STACK
    }

    pub(crate) fn bottom(&self) -> usize {
        self.base + GUARD
    }

    /// Is this the guard page, hit by running off the stack?
    pub(crate) fn guards(&self, addr: usize) -> bool {
        (self.base..self.base + GUARD).contains(&addr)
    }

    /// Prepares the stack so that the first switch to the returned stack pointer calls `entry(arg)`.
    pub(crate) fn prepare(&self, entry: extern "C" fn(usize) -> !, arg: usize) -> usize {
        // From low to high: what `switch` pops (r15 r14 r13 r12 rbx rbp, return address).
        let frame: [usize; 8] = [
            0,
            0,
            arg,
            entry as *const () as usize,
            0,
            0,
            start as *const () as usize,
            0,
        ];
        let sp = self.top() - 16 - size_of_val(&frame);
        crate::kp::poke(sp, frame);
        sp
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no thread runs on it any more.
        unsafe { libc::munmap(self.base as *mut libc::c_void, STACK + GUARD) };
    }
}

/// First code on a new stack: r12 is the function, r13 its argument. The zero pushed ends backtraces.
#[unsafe(naked)]
extern "C" fn start() {
    std::arch::naked_asm!(
        "xor ebp, ebp",
        "and rsp, -16",
        "push 0",
        "push 0",
        "mov rdi, r13",
        "call r12",
        "ud2"
    )
}

/// Saves this stack at `*save` and goes on with the stack pointer `to`.
///
/// # Safety
/// `to` is a value saved here or by [`Stack::prepare`], of a stack that still exists, used once.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn switch(save: *mut usize, to: usize) {
    std::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
