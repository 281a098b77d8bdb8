//! Which file imports which, and the loops among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An import: from, to, and the line in `from`.
pub(crate) type Edge = (usize, usize, usize);

#[derive(Default)]
pub(crate) struct Graph {
    edges: BTreeMap<usize, BTreeMap<usize, usize>>,
}

impl Graph {
    /// Of several imports of the same file the first line counts.
    pub(crate) fn add(&mut self, from: usize, to: usize, line: usize) {
        let first = self.edges.entry(from).or_default().entry(to).or_insert(line);
        *first = line.min(*first);
    }

    /// Takes an import out, and returns its line.
    pub(crate) fn remove(&mut self, from: usize, to: usize) -> Option<usize> {
        self.edges.get_mut(&from)?.remove(&to)
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        self.path(from, to).is_some()
    }

    /// Takes the imports of a shortest loop out, and returns them in order.
    pub(crate) fn take_shortest_cycle(&mut self) -> Option<Vec<Edge>> {
        let cycles = self.edges.keys().filter_map(|from| self.path(*from, *from));
        let cycle = cycles.min_by_key(Vec::len)?;
        for (from, to, _) in &cycle {
            self.remove(*from, *to);
        }
        Some(cycle)
    }

    /// The shortest way along imports, of at least one.
    fn path(&self, from: usize, to: usize) -> Option<Vec<Edge>> {
        let mut came: BTreeMap<usize, Edge> = BTreeMap::new();
        let mut seen = BTreeSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            for (next, line) in self.edges.get(&at).into_iter().flatten() {
                if *next == to {
                    let mut path = vec![(at, *next, *line)];
                    while let Some(edge) = came.get(&path[path.len() - 1].0) {
                        path.push(*edge);
                    }
                    path.reverse();
                    return Some(path);
                }
                if seen.insert(*next) {
                    came.insert(*next, (at, *next, *line));
                    queue.push_back(*next);
                }
            }
        }
        None
    }
}
