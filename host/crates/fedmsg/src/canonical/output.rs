//! The canonical text as it grows.
//!
//! Most of a text that came from Python is canonical already. So what is to stay as it is written is
//! only passed over at first, and copied in one piece when something comes that does not stay.

/// A canonical text that grows while its source is read from the beginning to the end.
pub(super) struct Output<'a> {
    source: &'a str,
    /// The canonical form of the source up to `from`.
    written: String,
    /// From here on the source was passed over and not copied yet.
    from: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, written: String::with_capacity(source.len()), from: 0 }
    }

    /// Returns how long the output is when the source was passed over up to `at`.
    pub(super) fn length(&self, at: usize) -> usize {
        self.written.len() + at - self.from
    }

    /// Copies what stands in the source from `start` up to `end` as something else: returns the text up
    /// to it, which is to be appended to.
    pub(super) fn instead(&mut self, start: usize, end: usize) -> &mut String {
        self.written.push_str(&self.source[self.from..start]);
        self.from = end;
        &mut self.written
    }

    /// Leaves out what stands in the source from `start` up to `end`.
    pub(super) fn leave_out(&mut self, start: usize, end: usize) {
        self.instead(start, end);
    }

    /// Returns the whole when the source was passed over to its end.
    pub(super) fn finish(mut self) -> String {
        self.written.push_str(&self.source[self.from..]);
        self.written
    }
}
