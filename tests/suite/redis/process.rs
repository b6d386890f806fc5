//! Processes that are killed, stopped and told to end while they work on a server.

use super::server::Kind;
use crate::crash;
use crate::rig::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills() {
    crash::one_process_killed_a_hundred_times(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_server() {
    crash::two_processes_killed_in_turns(Place::server(Kind::Valkey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killer() {
    crash::an_event_that_kills_its_process_is_given_up_and_its_neighbours_are_not(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process() {
    crash::what_a_stopped_process_still_does_when_it_goes_on_is_fenced(Place::server(Kind::Redis)).await;
}
