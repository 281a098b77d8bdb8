//! The floors as the code's imports make them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::source::Source;
use crate::table::Layers;

/// A crate's rooms under the floors of the table: height, room, lines, what the room imports. A room that imports
/// no other has height 1, and each is one higher than the highest that it imports. Exceptions are listed, not counted.
pub(crate) fn table(
    layers: &Layers,
    source: &Source,
    imports: &BTreeMap<String, BTreeSet<String>>,
) -> String {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &source.files {
        if let Some((_, room)) = layers.room_of(&file.path) {
            *lines.entry(room).or_default() += file.lines;
        }
    }
    let heights: BTreeMap<&str, usize> =
        lines.keys().map(|room| (*room, height(room, imports, &mut Vec::new()))).collect();

    let arrows: usize = imports.values().map(BTreeSet::len).sum();
    let top = heights.values().max().copied().unwrap_or(0);
    let width = lines.keys().map(|room| room.len()).max().unwrap_or(0);
    let mut text = String::new();
    _ = writeln!(
        text,
        "{} ({}): {} rooms, {top} high, {arrows} imports",
        layers.name,
        layers.src.name,
        lines.len()
    );
    for (number, floor) in layers.floors.iter().enumerate() {
        _ = writeln!(text, "{}. {}", number + 1, floor.holds);
        let mut rooms: Vec<&str> = floor.rooms.iter().map(|room| room.name.as_str()).collect();
        rooms.retain(|room| lines.contains_key(room));
        rooms.sort_by_key(|room| std::cmp::Reverse(heights[room]));
        for room in rooms {
            let listed: Vec<&str> = imports.get(room).into_iter().flatten().map(String::as_str).collect();
            let row =
                format!("   {:>2}  {room:width$}  {:>5}  {}", heights[room], lines[room], listed.join(", "));
            _ = writeln!(text, "{}", row.trim_end());
        }
    }
    for exception in &layers.exceptions {
        _ = writeln!(text, "   exception until {}: {} -> {}", exception.issue, exception.from, exception.to);
    }
    text.push('\n');
    text
}

fn height(room: &str, imports: &BTreeMap<String, BTreeSet<String>>, above: &mut Vec<String>) -> usize {
    if above.iter().any(|it| it == room) {
        return 0;
    }
    above.push(room.to_owned());
    let below = imports.get(room).into_iter().flatten().filter(|import| is_room(import));
    let highest = below.map(|import| height(import, imports, above)).max().unwrap_or(0);
    above.pop();
    highest + 1
}

/// A file or a folder, and not a crate.
fn is_room(import: &str) -> bool {
    import.ends_with('/') || import.ends_with(".rs")
}
