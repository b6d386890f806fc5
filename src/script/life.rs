//! The life of one run: key, record, event, `handle`, outcome.
//!
//! A short list of steps, each of which may end it. Nothing here decides what becomes of the delivery.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use mlua::{MultiValue, Value};

use super::convert::DecodeError;
use super::key::{self, KeyError};
use super::metered::metered;
use super::run::{Phase, Run, Task};
use super::stage::{Stage, Warm};
use super::thread::Work;
use super::vm::Vm;
use super::{IdempotencyKey, Manifest, api, fault};
use crate::bus::{Delivery, Recorded};
use crate::event::Event;
use crate::outcome::{Failure, FailureKind, Outcome, Record, RecordKey, Release};

/// Ends a run early: with an outcome, or (`None`) as the run itself has it.
type Early = Option<Outcome>;

/// Runs a delivery whose event could be decoded. `None`: [`Run::take_end`] has the outcome.
pub(super) async fn live(stage: &Stage, work: &Work, run: &Rc<Run>, record: &mut Option<Record>) -> Early {
    match steps(stage, work, run, record).await {
        Ok(outcome) => Some(outcome),
        Err(early) => early,
    }
}

async fn steps(stage: &Stage, work: &Work, run: &Rc<Run>, record: &mut Option<Record>) -> Result<Outcome, Early> {
    let Some((task, event)) = run.task.as_ref().and_then(|task| Some((task, task.event()?))) else {
        return Err(Some(Outcome::Failed(Failure::new(FailureKind::Host, "a run needs an event"))));
    };
    let text = key_of(stage, work, run, event).await?;
    run.key.get_or_init(|| text.clone());
    let manifest = &work.piece.program.manifest;
    run.steps.borrow_mut().belong_to(event_of(manifest, task, event, &text));
    if let Some(window) = manifest.idempotency.window {
        let key = RecordKey::new(&manifest.group, &event.kind, &text);
        *record = Some(Record { key, text: text.clone(), window });
        check_record(run, task, key).await?;
    }
    check_chain(task, run.limits.depth_max)?;
    let warm = enter(stage, work, run).await?;
    run.phase.set(Phase::Handling);
    let args = arguments(stage, run, &warm, task, event)?;
    let call = warm.vm.run_entry().call_async::<(bool, MultiValue)>((
        warm.handle.clone(),
        task.delivery.attempt(),
        text,
        args,
    ));
    let returned = drive(stage, run, &warm.vm, call).await;
    run.data.take();
    let (ok, returned) = returned.ok_or(None)?.map_err(|error| failed(run, &warm, error))?;
    match ok {
        true => finished(run, returned),
        false => Err(Some(Outcome::Failed(thrown(run, returned)))),
    }
}

/// Names what is recorded of the event's steps: as its idempotency record, where it has one; as an earlier delivery did, where its
/// group had another name.
fn event_of(manifest: &Manifest, task: &Task, event: &Event, text: &str) -> RecordKey {
    let delivery = &task.delivery;
    let (stream, entry) = delivery.origin();
    delivery.past.as_ref().and_then(|past| past.steps).unwrap_or_else(|| match manifest.idempotency.window {
        Some(_) => RecordKey::new(&manifest.group, &event.kind, text),
        None => RecordKey::of_entry(&manifest.group, stream, entry),
    })
}

/// Whether the event may be the end of a cycle: whoever receives it gives it up before it runs, so that it is lost nowhere.
fn check_chain(task: &Task, most: usize) -> Result<(), Early> {
    let trail = task.delivery.trail();
    let depth = trail.depth();
    if depth <= most {
        return Ok(());
    }
    let reason = format!(
        "{depth} emits led to this event, more than limits.depth = {most}: {trail}; break the cycle, or raise the limit in \
         the configuration"
    );
    Err(Some(Outcome::Cycle { reason }))
}

/// Gets a VM for `run` and puts it in.
async fn enter(stage: &Stage, work: &Work, run: &Rc<Run>) -> Result<Rc<Warm>, Early> {
    let program = &work.piece.program;
    let warm = match stage.warm(program).filter(|_| !work.piece.alone) {
        Some(warm) => warm,
        None => {
            let made = until_end(run, stage.make(program, work.piece.alone)).await.ok_or(None)?;
            made.map_err(|failure| Some(Outcome::Failed(failure)))?
        }
    };
    run.vm.set(warm.number);
    warm.vm.tidy();
    Ok(warm)
}

/// The text of the idempotency key.
async fn key_of(stage: &Stage, work: &Work, run: &Rc<Run>, event: &Event) -> Result<String, Early> {
    let text = match &work.piece.program.manifest.idempotency.key {
        IdempotencyKey::SourceAndId => key::from_source_and_id(event),
        IdempotencyKey::Paths(paths) => key::from_paths(event, paths),
        IdempotencyKey::Function => from_function(stage, work, run, event).await?,
    };
    text.map_err(|error| {
        Some(match error {
            KeyError::Undecodable(reason) => Outcome::Undecodable { reason },
            KeyError::Invalid(_) => Outcome::Invalid { reason: error.to_string() },
        })
    })
}

async fn from_function(
    stage: &Stage,
    work: &Work,
    run: &Rc<Run>,
    event: &Event,
) -> Result<Result<String, KeyError>, Early> {
    let warm = enter(stage, work, run).await?;
    let (Some(task), Some(function)) = (run.task.as_ref(), warm.key.clone()) else {
        return Err(Some(Outcome::Failed(Failure::new(FailureKind::Error, "idempotency.key is no function any more"))));
    };
    let args = arguments(stage, run, &warm, task, event)?;
    let call = warm.vm.key_entry().call_async::<(bool, Value)>((function, args));
    let (ok, value) =
        drive(stage, run, &warm.vm, call).await.ok_or(None)?.map_err(|error| failed(run, &warm, error))?;
    run.data.take();
    if !ok {
        return Err(Some(Outcome::Failed(thrown(run, MultiValue::from_iter([value])))));
    }
    Ok(match &value {
        Value::String(_) | Value::Boolean(_) | Value::Integer(_) | Value::Number(_) => match value.to_string() {
            Ok(text) => key::from_text(text),
            Err(error) => Err(KeyError::Invalid(error.to_string())),
        },
        other => {
            Err(KeyError::Invalid(format!("expected a text, a number or a boolean, got {}", api::describe(other))))
        }
    })
}

/// Ends the run if another event holds the record, unless it is a replay of the dead letter that the record names.
async fn check_record(run: &Rc<Run>, task: &Task, key: RecordKey) -> Result<(), Early> {
    let Some(answer) = until_end(run, task.lookups.recorded(key)).await else { return Err(None) };
    let Ok(recorded) = answer else { return Err(Some(Outcome::Released(Release::StoreAway))) };
    match recorded.filter(|recorded| is_foreign(&task.delivery, recorded)) {
        Some(recorded) if recorded.contested => Err(Some(Outcome::Contested { by: recorded.by })),
        Some(recorded) => Err(Some(Outcome::Duplicate { by: recorded.by })),
        None => Ok(()),
    }
}

fn is_foreign(delivery: &Delivery, recorded: &Recorded) -> bool {
    let own = delivery.token();
    let origin = |token: &str| token.rsplit_once('#').map_or(token.to_owned(), |(origin, _)| origin.to_owned());
    let replayed = delivery.past.as_ref().and_then(|past| past.replay_of);
    let passes = replayed.is_some() && replayed == recorded.dead;
    origin(&own) != origin(&recorded.by) && !passes
}

/// The event as the prelude takes it. Converting it is charged to the run: what an event can cost is its own concern.
fn arguments(stage: &Stage, run: &Rc<Run>, warm: &Warm, task: &Task, event: &Event) -> Result<MultiValue, Early> {
    let _slice = stage.meter.enter(run);
    let data = decode(run, warm, "data", event.data.as_ref())?;
    let ext = decode(run, warm, "ext", event.ext.as_ref())?;
    *run.data.borrow_mut() = data.as_table().cloned();
    let texts = [
        Some(event.id.as_str()),
        Some(&event.source),
        Some(&event.kind),
        event.subject.as_deref(),
        event.time.as_deref(),
        event.dataschema.as_deref(),
        event.correlation_id.as_deref(),
        event.causation_id.as_deref(),
        event.traceparent.as_deref(),
    ];
    let (stream, entry) = task.delivery.origin();
    let entry = entry.to_string();
    let value = |text: Option<&str>| match text {
        Some(text) => warm.vm.lua.create_string(text).map(Value::String),
        None => Ok(Value::Nil),
    };
    let attributes = texts.into_iter().map(value);
    let place = [Some(stream), Some(entry.as_str())].into_iter().map(value);
    let all = attributes.chain([Ok(ext), Ok(data)]).chain(place).collect::<mlua::Result<MultiValue>>();
    all.map_err(|error| failed(run, warm, error))
}

fn decode(run: &Run, warm: &Warm, name: &str, json: Option<&crate::event::Json>) -> Result<Value, Early> {
    let Some(json) = json else { return Ok(Value::Nil) };
    warm.vm.home.codec.decode(&warm.vm.lua, json.bytes(), true).map_err(|error| match error {
        DecodeError::Vm(error) => failed(run, warm, error),
        error => Some(Outcome::Undecodable { reason: format!("{name} is not JSON: {error}") }),
    })
}

/// Polls `call` as `run`, until it is done or the run has ended (`None`).
async fn drive<T>(stage: &Stage, run: &Rc<Run>, vm: &Vm, call: impl Future<Output = T>) -> Option<T> {
    until_end(run, metered(&stage.meter, run, &vm.memory, call)).await
}

/// Waits for `future`, or for the end of the run (`None`): its deadline, or whatever ends it from outside.
async fn until_end<T>(run: &Rc<Run>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut deadline = pin!(tokio::time::sleep_until(run.deadline().into()));
    poll_fn(move |cx| {
        run.watch(cx);
        if run.ended() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if !run.ended() && deadline.as_mut().poll(cx).is_ready() {
            run.time_out();
        }
        if run.ended() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// An error that the prelude's `xpcall` did not catch: the VM's, or one on top of another.
fn failed(run: &Run, warm: &Warm, error: mlua::Error) -> Early {
    if fault::is_memory(&error) {
        run.fail_memory();
    }
    if run.ended() {
        return None;
    }
    let sources = &warm.vm.home.sources;
    Some(Outcome::Failed(fault::from_text(sources, FailureKind::Error, &fault::innermost(&error))))
}

/// What `handle` threw.
fn thrown(run: &Run, values: MultiValue) -> Failure {
    let fault = run.fault.take();
    let mut failure = fault.unwrap_or_else(|| {
        let value = values.front().cloned().unwrap_or(Value::Nil);
        Failure::new(FailureKind::Error, format!("{} was thrown", api::describe(&value)))
    });
    if run.unfit.borrow().as_ref().is_some_and(|unfit| failure.message.starts_with(unfit.as_str())) {
        failure.kind = FailureKind::Effects;
    }
    failure
}

/// `handle` came to its end: done, if it returned nothing.
fn finished(run: &Run, returned: MultiValue) -> Result<Outcome, Early> {
    if run.ended() {
        return Err(None);
    }
    match returned.iter().find(|value| !value.is_nil()) {
        None => Ok(Outcome::Done(run.buffer.borrow_mut().take_effects())),
        Some(value) => {
            let message = format!(
                "handle returned {}; it returns nothing: emit, write, or call ctx:retry, ctx:snooze, ctx:reject",
                api::describe(value)
            );
            Ok(Outcome::Failed(Failure::new(FailureKind::Return, message)))
        }
    }
}
