//! A call into a VM, polled as a run: charged to it, preempted, and safe to drop.
//!
//! Owns that the VM's memory limit is up whenever a script runs, and lifted whenever a coroutine is dropped. Decides nothing
//! about the run.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use mlua::Lua;

use super::meter::Meter;
use super::run::Run;

/// A VM's memory limit.
pub(super) struct Memory {
    lua: Lua,
    /// Bytes, of all that the VM holds.
    pub max: usize,
}

impl Memory {
    /// Limits what `lua` may hold from now on.
    ///
    /// # Errors
    /// Where the VM has an allocator of its own.
    pub fn limit(lua: &Lua, max: usize) -> mlua::Result<Self> {
        lua.set_memory_limit(max)?;
        Ok(Self { lua: lua.clone(), max })
    }

    fn set(&self, holds: bool) {
        // Fails only where the VM has an allocator of its own, and then it would not have been made.
        drop(self.lua.set_memory_limit(if holds { self.max } else { 0 }));
    }
}

/// Polls `call` as `run`, until it is done.
///
/// A run that was preempted is polled twice: if it yielded between mlua's poll of a host future and the wait for it,
/// resuming it only reaches that wait, and a wake-up that came meanwhile would be lost.
pub(super) async fn metered<T>(meter: &Meter, run: &Rc<Run>, memory: &Memory, call: impl Future<Output = T>) -> T {
    let _limited = Limited(memory);
    let mut call = pin!(call);
    // Dropping the call makes the coroutine's stack smaller, which allocates, outside of any protected call: at the memory
    // limit that would end the process. What is declared last is dropped first.
    let _unlimited = Unlimited(memory);
    poll_fn(move |cx| {
        let resumed = run.preempted.take();
        let _slice = meter.enter(run);
        let polled = call.as_mut().poll(cx);
        if resumed && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// Sets the VM's memory limit again when it is dropped.
struct Limited<'a>(&'a Memory);

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Lifts the VM's memory limit when it is dropped.
struct Unlimited<'a>(&'a Memory);

impl Drop for Unlimited<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
