//! Idle connections without hyper: waits for bytes, and obeys limits and orders in their name.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::buffers::unsent;
use super::connection::{self, Arrival, Connections, ParkedConnection};
use super::handover_sockets::{HandoverConnection, Stage};
use super::io::has_unread;
use super::orders::Order;

/// Serves parked connections again when bytes arrive, and closes those that must make room.
pub(super) async fn watch(connections: Rc<Connections>) {
    let (worker, parking) = (connections.worker(), connections.parking());
    loop {
        // Before the order is read, so that none is missed.
        let ordered = worker.ordered();
        if worker.order().is_frozen() {
            ordered.await;
            continue;
        }
        tokio::select! {
            biased;
            () = ordered => {}
            numbers = parking.leaving().numbers() => {
                // A number may belong to another connection by now.
                for number in numbers {
                    if let Some(parked) = parking.take_one_if(number, |parked| parked.place().leaves()) {
                        close(&connections, parked);
                    }
                }
            }
            readable = parking.readable() => readable.into_iter().for_each(serve_again),
        }
    }
}

/// Closes the connections whose time is over.
pub(super) fn expire(connections: &Connections, now: Instant) {
    if connections.worker().order() == Order::Serve {
        let over = connections.parking().take_if(|parked| parked.until <= now);
        over.into_iter().for_each(|parked| close(connections, parked));
    }
}

/// Obeys an order to end: later, no connection is parked.
pub(super) fn obey(connections: &Connections, order: Order) {
    match order {
        // They stay in the list, without being watched.
        Order::Serve | Order::Freeze { .. } => {}
        Order::HandOver => {
            for ParkedConnection { socket, used, .. } in connections.parking().take_if(|_| true) {
                let (read, unwritten) = (Bytes::new(), Bytes::new());
                let stage = if used { Stage::Used } else { Stage::New };
                connections.worker().give_back(HandoverConnection { socket, read, unwritten, stage });
            }
        }
        Order::Stop(_) => {
            for parked in connections.parking().take_if(|_| true) {
                // One that has not sent anything yet gets a moment for its first request.
                if parked.used { close(connections, parked) } else { serve_again(parked) }
            }
        }
    }
}

/// Closes a connection, unless a request has arrived.
fn close(connections: &Connections, parked: ParkedConnection) {
    if has_unread(&parked.socket) {
        return serve_again(parked);
    }
    if parked.place().leaves() {
        connections.worker().traffic().made_room.increment();
    }
    // The socket stays within the limits until everything is sent.
    if unsent(&parked.socket) > 0 {
        serve_from(parked, Stage::Ending);
    }
}

fn serve_again(parked: ParkedConnection) {
    let stage = if parked.used { Stage::Used } else { Stage::New };
    serve_from(parked, stage);
}

fn serve_from(parked: ParkedConnection, stage: Stage) {
    let ParkedConnection { socket, open, .. } = parked;
    // Does not fail in practice.
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let arrival = Arrival { socket, read: Bytes::new(), unwritten: Bytes::new(), stage, readable: true };
    connection::spawn(arrival, open);
}
