//! A gate before Keycloak: whoever comes through it meets the real server, until it is shut. Beside it everything goes on.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What the gate does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes it on.
    Open,
    /// Takes it and lets nothing through: whoever waits for an answer waits.
    Hanging,
    /// Ends every connection.
    Cutting,
    /// Each answer comes so much later. What is asked arrives at once.
    Slow(Duration),
}

/// A gate, for as long as the process lives.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<Mode>, Condvar)>);

impl Gate {
    /// Opens a gate to this server at this port; nothing if somebody else has the port.
    pub fn at(port: u16, server: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        let gate = Self(Arc::new((Mutex::new(Mode::Open), Condvar::new())));
        let shared = gate.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let gate = shared.clone();
                thread::spawn(move || drop(gate.connect(client, server)));
            }
        });
        Some(gate)
    }

    /// From now on.
    pub fn is(&self, mode: Mode) {
        *self.0.0.lock().expect("lock") = mode;
        self.0.1.notify_all();
    }

    fn connect(&self, client: TcpStream, server: SocketAddr) -> io::Result<()> {
        self.pass()?;
        let server = TcpStream::connect(server)?;
        let (gate, from, to) = (self.clone(), client.try_clone()?, server.try_clone()?);
        let asked = Arc::new(AtomicBool::new(false));
        let asks = asked.clone();
        thread::spawn(move || drop(gate.pump(from, to, || asks.store(true, Ordering::SeqCst))));
        self.pump(server, client, || {
            // Only the beginning of an answer waits: a long one is not slower than a short one.
            if asked.swap(false, Ordering::SeqCst)
                && let Mode::Slow(delay) = self.mode()
            {
                thread::sleep(delay);
            }
        })
    }

    fn mode(&self) -> Mode {
        *self.0.0.lock().expect("lock")
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, before: impl Fn()) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let outcome = loop {
            let read = match from.read(&mut buffer) {
                Ok(read) if read > 0 => read,
                outcome => break outcome.map(drop),
            };
            before();
            if let Err(error) = self.pass().and_then(|()| to.write_all(&buffer[..read])) {
                break Err(error);
            }
        };
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        outcome
    }

    /// Waits until the gate lets through.
    fn pass(&self) -> io::Result<()> {
        let mode = self.0.0.lock().expect("lock");
        let mode = self.0.1.wait_while(mode, |mode| *mode == Mode::Hanging).expect("lock");
        if *mode == Mode::Cutting { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}
