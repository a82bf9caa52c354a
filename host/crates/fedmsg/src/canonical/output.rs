//! The canonical text while it is being written.
//!
//! Most of a text that Python wrote is already canonical. Canonical parts are not copied immediately. All
//! text since the last change is copied in one piece when the next part that must be changed is reached.

/// A canonical text that is written while its source is read from start to end.
pub(super) struct Output<'a> {
    source: &'a str,
    /// Canonical form of the source up to `from`.
    written: String,
    /// Position in the source up to which text was copied or replaced.
    from: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, written: String::with_capacity(source.len()), from: 0 }
    }

    /// Returns the length that the output has if the source is copied up to `at`.
    pub(super) fn length(&self, at: usize) -> usize {
        self.written.len() + at - self.from
    }

    /// Replaces the part of the source from `start` to `end`. Returns the output, to which the caller appends
    /// the replacement.
    pub(super) fn instead(&mut self, start: usize, end: usize) -> &mut String {
        self.written.push_str(&self.source[self.from..start]);
        self.from = end;
        &mut self.written
    }

    /// Omits the part of the source from `start` to `end`.
    pub(super) fn leave_out(&mut self, start: usize, end: usize) {
        self.instead(start, end);
    }

    /// Returns the whole output. The source must have been read to its end.
    pub(super) fn finish(mut self) -> String {
        self.written.push_str(&self.source[self.from..]);
        self.written
    }
}
