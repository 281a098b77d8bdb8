//! Message ids of the events that operators act on. An id never changes, so that `journalctl MESSAGE_ID=…`
//! finds the event in every version's wording. `systemd/instance-agent.catalog` explains each
//! (`journalctl -x`).
//!
//! A new event needs a new id (`systemd-id128 new`) and an entry in the catalog.

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $id;)*
        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$((stringify!($name), $id)),*];
    };
}

events! {
    /// The agent listens and serves.
    STARTED = "eed22054349d4e63b0ffb19901a308d9";
    /// The installed version has taken over.
    RELOADED = "0f74565e53c74f9a914371061305f64d";
    /// A reload was refused; the running version keeps serving.
    RELOAD_REFUSED = "d219717859be4ee5ad2c542b3d65b3ed";
    /// A target group has accepted the instance.
    REGISTERED = "bd53db7ddfa84f2c94e41a22ec205ed1";
    /// The balancer's checks pass.
    HEALTHY = "c90c7c2f45a84f55bd8a0e8e7114d36f";
    /// The balancer's checks fail.
    UNHEALTHY = "33113f4b87f340bcbd36f5780a9285c7";
    /// Registered, but the load balancer does not use the target.
    UNUSED = "457ccc7f7ca742febb9ad6c5740ab180";
    /// Registering or deregistering fails.
    REGISTRATION_FAILING = "ec1739f1e1a040319489b0f60227ab24";
    /// Calls about the target group succeed again.
    REGISTRATION_WORKS = "f088a05fdcdf47c78d53c2d03168b492";
    /// The instance leaves every target group.
    DRAINING = "13a41b848ade463d989bfba1dd49b3a9";
    /// The instance has left every target group and traffic has stopped.
    DRAINED = "dd8067e5596c409b87b8a1babdf72448";
    /// The drain reached its timeout.
    DRAIN_TIMED_OUT = "da1e72cde52e4e4e9b02ddcc33686e58";
    /// One or both copies in the seed's file are damaged.
    SEED_DAMAGED = "faf517c6c4804a0fa8f3846b5ec80111";
    /// A seed could not be stored, or the folder for it cannot be used.
    SEED_WRITE_FAILED = "12b9421e96494ca98d7413c0f9ac1226";
    /// Seeds are stored again.
    SEED_WRITE_WORKS = "d885f3ee5f9048b9a57890390d940035";
    /// `max-connections` connections are open.
    CONNECTION_LIMIT = "89be322a8b7e4b41be0b5db02c607b80";
    /// Connections are dropped whose clients read no answers.
    UNREAD_DROPPED = "2eda655a81d44b24b466821894296bde";
    /// The port is closed and the process ends.
    STOPPED = "c2049c736e6e4115b49bc5aaf7515205";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn each_id_has_one_entry_in_the_catalog_under_its_name_and_no_entry_is_without_an_id() {
        let catalog = include_str!("../../../systemd/instance-agent.catalog");
        let mut lines = catalog.lines().peekable();
        let mut entries = Vec::new();
        while let Some(line) = lines.next() {
            if let Some(id) = lines.peek().and_then(|next| next.strip_prefix("-- ")) {
                entries.push((line.trim_start_matches("# "), id));
            }
        }
        assert_eq!(entries, ALL);
    }

    #[test]
    fn each_fault_is_in_the_table_of_what_to_do() {
        let table = include_str!("../../../docs/how-to/when-things-break.md");
        let good = ["STARTED", "RELOADED", "REGISTERED", "HEALTHY", "DRAINING", "DRAINED", "STOPPED"];
        for (name, id) in ALL.iter().filter(|(name, _)| !good.contains(name)) {
            assert!(table.contains(id), "{name} is not in the table");
        }
    }

    #[test]
    fn ids_are_128_bits_in_lower_case_and_no_two_alike() {
        for (name, id) in ALL {
            assert_eq!(id.len(), 32, "{name}");
            assert!(id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{name}");
            assert_eq!(ALL.iter().filter(|(_, other)| other == id).count(), 1, "{name}");
        }
    }
}
