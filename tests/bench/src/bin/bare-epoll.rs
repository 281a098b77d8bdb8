//! One thread, one epoll loop, one fixed answer: the least that a server can do for a request, so the limit.
//! It reads no request beyond its end, and knows neither limits nor time.
//!
//! usage: `bare-epoll ADDRESS:PORT`

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// What an event of the listening socket carries; connections carry their place in the list.
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    let address =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: bare-epoll ADDRESS:PORT"))?;
    let listener = TcpListener::bind(&address)?;
    listener.set_nonblocking(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\r\n{}",
        bench::BODY.len(),
        bench::BODY
    );
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = [0; 16 * 1024];
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let place = event.data.u64();
            if place == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let place = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    epoll::add(&poll, &stream, EventData::new_u64(place as u64), EventFlags::IN)?;
                    connections[place] = Some(stream);
                }
                continue;
            }
            let place = place as usize;
            let Some(stream) = &mut connections[place] else { continue };
            // A request of the client arrives whole; part of one gets no answer.
            let keep = match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) if buffer[..length].ends_with(b"\r\n\r\n") => {
                    stream.write_all(answer.as_bytes()).is_ok()
                }
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            if !keep {
                connections[place] = None;
                free.push(place);
            }
        }
    }
}
