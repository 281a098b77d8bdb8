//! The handover record: what a program leaves to the one that replaces it in the same process.
//!
//! The record is a memory file. Its descriptor, like those of the sockets it names, stays open over
//! `execve`. It holds one line of JSON, then for each connection the bytes already read from it and
//! the bytes still to write to it, in the lengths that the JSON gives. Newer agents must be able to
//! read the records of older ones.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::sys;
use crate::config::Role;
use crate::identity::Instance;
use crate::notices::Notices;
use crate::status::GroupStatus;
use crate::target_group::TargetGroupRef;
use instance_server::server::{HandoverConnection, HandoverSockets, Stage};
use instance_server::traffic::TrafficSnapshot;

/// The version of the record's form. A program that cannot read the running agent's form refuses to replace it.
pub(crate) const HANDOVER_VERSION: u32 = 1;

/// The environment variable with the record's descriptor.
const DESCRIPTOR: &str = "HANDOVER_FD";

/// The state that the next program needs, except the sockets. Later versions may add fields with a default and must
/// not remove any, so that older and newer programs can read each other's records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Predecessor {
    /// The version of the program that wrote the record.
    pub(crate) from: String,
    /// The number of reload requests so far, including this one.
    pub(crate) attempt: u64,
    /// The path of the installed program, if it is UTF-8.
    pub(crate) program: Option<String>,
    /// When requests began to wait, on the monotonic clock, in nanoseconds.
    pub(crate) paused_at: u64,
    /// Requests refused because their body was late.
    pub(crate) refused_bodies: usize,
    /// The fingerprint of the unit's files when the process started.
    pub(crate) unit: Option<u32>,
    pub(crate) traffic: TrafficSnapshot,
    /// Identity and tags; `None` before the first attempt to read them.
    pub(crate) instance: Option<Instance>,
    /// Notices in force; `None` before the first attempt to read them.
    pub(crate) notices: Option<Notices>,
    /// The meaning of `GET /`.
    pub(crate) root: String,
    pub(crate) cluster: Option<String>,
    /// The target groups to be in, as named in the settings or the tag.
    pub(crate) target_groups: Vec<String>,
    /// Target groups that the instance was still leaving.
    pub(crate) parting: Vec<String>,
    /// The instance was drained.
    pub(crate) drained: bool,
    /// Log entries that journald had not taken.
    pub(crate) unlogged: u64,
    /// Since when the phase lasts, RFC 3339 in UTC.
    pub(crate) since: Option<String>,
    /// The last known state of each target group.
    pub(crate) group_states: Vec<GroupStatus>,
}

impl Predecessor {
    /// The role before the reload. Values that this program does not understand are left out: settings
    /// and tags will give them again.
    pub(crate) fn role(&self) -> Role {
        Role {
            root: self.root.parse().unwrap_or_default(),
            cluster: self.cluster.as_ref().and_then(|cluster| cluster.parse().ok()),
            target_groups: groups(&self.target_groups),
        }
    }

    pub(crate) fn parting(&self) -> Vec<TargetGroupRef> {
        groups(&self.parting)
    }

    pub(crate) fn set_role(&mut self, role: &Role, parting: &[TargetGroupRef]) {
        self.root = role.root.to_string();
        self.cluster = role.cluster.as_ref().map(ToString::to_string);
        self.target_groups = role.target_groups.iter().map(ToString::to_string).collect();
        self.parting = parting.iter().map(ToString::to_string).collect();
    }
}

fn groups(names: &[String]) -> Vec<TargetGroupRef> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The record is for this process alone.
    pid: u32,
    listener: RawFd,
    admin: Option<RawFd>,
    connections: Vec<ConnectionRecord>,
    /// Released programs read and write this key.
    #[serde(rename = "legacy")]
    predecessor: Predecessor,
}

#[derive(Serialize, Deserialize)]
struct ConnectionRecord {
    socket: RawFd,
    stage: Stage,
    /// The number of bytes read from it, which follow the JSON.
    read: usize,
    /// The number of bytes to write to it, which follow those.
    unwritten: usize,
}

/// A written record, with every descriptor that it names open over `execve`. Dropping it sets
/// close-on-exec again.
pub(super) struct WrittenRecord<'a> {
    memory: File,
    handed: &'a HandoverSockets,
    admin: Option<BorrowedFd<'a>>,
}

/// Writes the record. The caller keeps the sockets, in case `execve` fails.
pub(super) fn write<'a>(
    handed: &'a HandoverSockets,
    admin: Option<BorrowedFd<'a>>,
    predecessor: Predecessor,
) -> io::Result<WrittenRecord<'a>> {
    let connections = handed.connections.iter().map(|connection| ConnectionRecord {
        socket: connection.socket.as_raw_fd(),
        stage: connection.stage,
        read: connection.read.len(),
        unwritten: connection.unwritten.len(),
    });
    let record = Record {
        version: HANDOVER_VERSION,
        pid: std::process::id(),
        listener: handed.listener.as_raw_fd(),
        admin: admin.map(|admin| admin.as_raw_fd()),
        connections: connections.collect(),
        predecessor,
    };
    // Kernels with vm.memfd_noexec=2 require NOEXEC_SEAL; older ones do not know it.
    let memory = rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC))?;
    let memory = File::from(memory);
    let mut written = WrittenRecord { memory, handed, admin };
    let mut file = BufWriter::new(&written.memory);
    serde_json::to_writer(&mut file, &record)?;
    file.write_all(b"\n")?;
    for connection in &handed.connections {
        file.write_all(&connection.read)?;
        file.write_all(&connection.unwritten)?;
    }
    file.flush()?;
    drop(file);
    written.memory.rewind()?;
    written.set_flags(FdFlags::empty())?;
    Ok(written)
}

impl WrittenRecord<'_> {
    /// The environment for the next program: this one's, with the record's descriptor.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os()
            .filter(|(name, _)| name != DESCRIPTOR)
            .chain([(DESCRIPTOR.into(), self.memory.as_raw_fd().to_string().into())])
            .collect()
    }

    fn set_flags(&self, flags: FdFlags) -> io::Result<()> {
        fcntl_setfd(&self.memory, flags)?;
        fcntl_setfd(&self.handed.listener, flags)?;
        if let Some(admin) = self.admin {
            fcntl_setfd(admin, flags)?;
        }
        for connection in &self.handed.connections {
            fcntl_setfd(&connection.socket, flags)?;
        }
        Ok(())
    }
}

impl Drop for WrittenRecord<'_> {
    fn drop(&mut self) {
        // Cannot fail: the descriptors are open.
        _ = self.set_flags(FdFlags::CLOEXEC);
    }
}

/// The state that this program got from the previous one.
pub(crate) struct InheritedState {
    /// The port and the connections.
    pub(crate) handed: HandoverSockets,
    /// The listening admin socket.
    pub(crate) admin: Option<OwnedFd>,
    /// Everything else.
    pub(crate) predecessor: Predecessor,
}

/// Restores the state that the previous program left in this process; `None` if there was none.
///
/// Call it once, before anything else opens a descriptor or starts a program: the record names descriptors by number,
/// and these numbers mean something only while nothing has closed or reused them.
///
/// 1. The environment variable gives the descriptor of the record. Programs that the agent starts must not inherit the
///    variable (`without_record`), and a record for another process id is an error.
/// 2. The first line says which descriptors are sockets. Each is taken exactly once and gets close-on-exec again, so that
///    no child program keeps a connection open.
/// 3. The bytes of the connections follow in the order of the list, for each first `read`, then `unwritten`. They are
///    read in that order, because the file has no other separators.
///
/// Every failure ends the start. There is no previous program to fall back to after `execve`, and a server that had lost
/// some of its connections silently would be worse than one that systemd starts again.
pub(crate) fn inherit() -> io::Result<Option<InheritedState>> {
    let Some(number) = std::env::var(DESCRIPTOR).ok().and_then(|number| number.parse().ok()) else {
        return Ok(None);
    };
    // SAFETY: the previous program left it open for this program alone.
    #[expect(unsafe_code, reason = "descriptors known by number only have no safe form")]
    let mut file = BufReader::new(File::from(unsafe { sys::take_descriptor(number) }?));
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    let record: Record = serde_json::from_slice(&line)?;
    if record.version != HANDOVER_VERSION || record.pid != std::process::id() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the handover record is for another process"));
    }
    let take = |number| -> io::Result<OwnedFd> {
        // SAFETY: as above; the record names each descriptor once.
        #[expect(unsafe_code, reason = "as above")]
        let socket = unsafe { sys::take_descriptor(number) }?;
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        Ok(socket)
    };
    let mut handed =
        HandoverSockets { listener: take(record.listener)?.into(), connections: Vec::new(), lost: 0 };
    for ConnectionRecord { socket, stage, read, unwritten } in record.connections {
        let mut bytes = |length| {
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes).map(|()| bytes.into())
        };
        handed.connections.push(HandoverConnection {
            read: bytes(read)?,
            unwritten: bytes(unwritten)?,
            socket: take(socket)?.into(),
            stage,
        });
    }
    let admin = record.admin.map(take).transpose()?;
    Ok(Some(InheritedState { handed, admin, predecessor: record.predecessor }))
}

/// Keeps the record's descriptor from a child program.
pub(super) fn without_record(command: &mut tokio::process::Command) {
    command.env_remove(DESCRIPTOR);
}

/// The monotonic clock, which continues over `execve`, in nanoseconds.
pub(crate) fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use instance_contract::Root;

    use super::*;

    /// A record of form 1, as every version that knows this form wrote it.
    const RECORD: &str = concat!(
        r#"{"version":1,"pid":7,"listener":3,"admin":4,"#,
        r#""connections":[{"socket":9,"stage":"used","read":2,"unwritten":0}],"#,
        r#""legacy":{"from":"0.1.0","attempt":2,"program":"/usr/bin/instance-agent","paused_at":12,"#,
        r#""refused_bodies":0,"unit":5,"#,
        r#""traffic":{"root":1,"health":2,"cluster":3,"seed_read":4,"seed_write":5,"refused":6,"probes":7,"#,
        r#""in_flight":0,"connections":1},"#,
        r#""instance":{"identity":{"id":"i-1","region":"us-east-1","availability_zone":"us-east-1a","#,
        r#""instance_type":"m4.large","private_ip":"10.0.0.1","from_imds":true},"#,
        r#""tags":{"instance-agent:cluster":"blue"}},"#,
        r#""notices":{"read":true,"spot":null,"rebalance":null,"auto_scaling":"InService"},"#,
        r#""root":"seed","cluster":"blue","target_groups":["blue"],"parting":["green"],"drained":false}}"#,
    );

    /// [`RECORD`] with what was added to the form since.
    fn with_defaults() -> String {
        let counted = RECORD
            .replace(r#""probes":7,"#, r#""probes":7,"made_room":0,"unread_dropped":0,"refused_probes":0,"#)
            .replace(r#""connections":1},"#, r#""connections":1,"parked":0},"#);
        counted
            .replace(r#""drained":false"#, r#""drained":false,"unlogged":0,"since":null,"group_states":[]"#)
    }

    #[test]
    fn a_record_of_an_older_program_is_understood_and_its_form_is_kept() {
        let record: Record = serde_json::from_str(RECORD).unwrap();
        let blue = Role {
            root: Root::Seed,
            cluster: Some("blue".parse().unwrap()),
            target_groups: vec![TargetGroupRef::Name("blue".to_owned())],
        };
        assert_eq!(record.predecessor.role(), blue);
        assert_eq!(record.predecessor.parting(), [TargetGroupRef::Name("green".to_owned())]);
        assert_eq!(serde_json::to_string(&record).unwrap(), with_defaults());

        let mut predecessor = Predecessor::default();
        predecessor.set_role(&blue, &record.predecessor.parting());
        assert_eq!(
            (
                &*predecessor.root,
                predecessor.cluster.as_deref(),
                &*predecessor.target_groups,
                &*predecessor.parting
            ),
            ("seed", Some("blue"), &*record.predecessor.target_groups, &*record.predecessor.parting)
        );
        let newer = Predecessor { root: "both".to_owned(), cluster: Some("Blue!".to_owned()), ..predecessor };
        assert_eq!((newer.role().root, newer.role().cluster), (Root::Health, None), "left out");
    }

    #[test]
    fn fields_that_only_one_of_two_programs_knows_are_left_out_or_take_their_default() {
        let added = RECORD.replace(r#""traffic":{"root":1,"#, r#""traffic":{"added_later":9,"root":1,"#);
        let added = added.replace(r#""attempt":2"#, r#""added_later":[],"attempt":2"#);
        let record: Record = serde_json::from_str(&added).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), with_defaults());

        let lacking = RECORD.replace(r#""probes":7,"#, "").replace(r#""attempt":2,"#, "");
        let record: Record = serde_json::from_str(&lacking).unwrap();
        let Predecessor { attempt, traffic, .. } = record.predecessor;
        assert_eq!((attempt, traffic.probes, traffic.root), (0, 0, 1));
    }

    #[test]
    fn what_a_target_group_thinks_is_read_also_where_only_one_of_two_programs_knows_a_field() {
        let states = r#"[{"name":"blue","state":"healthy","since":"2026-01-01T00:00:00Z","added_later":1}]"#;
        let known =
            RECORD.replace(r#""drained":false"#, &format!(r#""drained":false,"group_states":{states}"#));
        let record: Record = serde_json::from_str(&known).unwrap();
        let [state] = &*record.predecessor.group_states else { panic!("{:?}", record.predecessor) };
        assert_eq!((&*state.name, &*state.state, state.as_of.as_deref()), ("blue", "healthy", None));
    }
}
