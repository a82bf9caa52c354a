//! The lengths to which a crash may cut SQLite's write-ahead log.

use std::ops::Range;

/// Size of the header of the log, in bytes (<https://www.sqlite.org/fileformat2.html#walformat>).
const LOG_HEADER: usize = 32;
/// Size of the header of a frame, in bytes. A page follows the header.
const FRAME_HEADER: usize = 24;
/// The default page size of SQLite, in bytes.
const PAGE: usize = 4096;
/// The interval of the cuts inside a page. It is a prime number, so that the offsets differ between pages.
const STEP: usize = 61;

/// Returns the lengths to which to cut a log of this many bytes whose last transaction begins at
/// `start`: at every byte of each frame's header, at every 61st byte of its page, and around its
/// end.
///
/// Inside a page, not every byte is needed. Every cut there has the same effect: the checksum of the frame
/// does not match.
pub fn cuts(bytes: Range<usize>) -> impl Iterator<Item = usize> {
    let Range { start, end } = bytes;
    (start..=end).filter(move |length| {
        let offset = (length - LOG_HEADER) % (FRAME_HEADER + PAGE);
        let is_header = offset <= FRAME_HEADER || offset == FRAME_HEADER + PAGE - 1;
        is_header || length % STEP == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_in_each_header_in_each_page_and_at_both_ends() {
        let frame = FRAME_HEADER + PAGE;
        let (start, end) = (LOG_HEADER + frame, LOG_HEADER + 3 * frame);
        let cuts: Vec<usize> = cuts(start..end).collect();
        assert_eq!((cuts[0], cuts[cuts.len() - 1]), (start, end));
        assert!(cuts.contains(&(end - 1)));
        for header in [start, start + frame] {
            assert!((header..header + FRAME_HEADER).all(|byte| cuts.contains(&byte)));
            let page = header + FRAME_HEADER..header + frame;
            assert!(cuts.iter().filter(|cut| page.contains(cut)).count() > PAGE / STEP - 1);
        }
    }
}
