//! The canonical text as it grows.
//!
//! Most of a text that came from Python is canonical already. Such parts are only passed over at first,
//! and copied in one piece when a part follows that has to change.

/// A canonical text that grows while its source is read from start to end.
pub(super) struct Output<'a> {
    source: &'a str,
    /// The canonical form of the source up to `from`.
    written: String,
    /// From here on the source was passed over but not copied yet.
    from: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, written: String::with_capacity(source.len()), from: 0 }
    }

    /// Returns the length of the output when the source was passed over up to `at`.
    pub(super) fn length(&self, at: usize) -> usize {
        self.written.len() + at - self.from
    }

    /// Replaces the part of the source from `start` up to `end`: returns the output up to it, to which the
    /// caller appends the replacement.
    pub(super) fn instead(&mut self, start: usize, end: usize) -> &mut String {
        self.written.push_str(&self.source[self.from..start]);
        self.from = end;
        &mut self.written
    }

    /// Leaves out the part of the source from `start` up to `end`.
    pub(super) fn leave_out(&mut self, start: usize, end: usize) {
        self.instead(start, end);
    }

    /// Returns the whole output when the source was passed over to its end.
    pub(super) fn finish(mut self) -> String {
        self.written.push_str(&self.source[self.from..]);
        self.written
    }
}
