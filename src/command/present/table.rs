//! Cells to aligned columns, as Go's tabwriter aligns them for podman: at least 12 wide, two blanks between.

const MINIMUM_WIDTH: usize = 12;
const PADDING: usize = 2;

/// Align lines whose cells end in tabs. What follows a line's last tab belongs to no column, so it is never padded.
/// A column is a run of neighbouring lines that have a cell there: a line without tabs ends all of them.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut first = 0;
        while first < lines.len() {
            let length = widths[first..].iter().take_while(|line| line.len() > column).count();
            let block = first..first + length;
            let widest = lines[block.clone()].iter().map(|cells| width(cells[column]) + PADDING).max();
            for line in &mut widths[block] {
                line[column] = widest.unwrap_or(0).max(MINIMUM_WIDTH);
            }
            first += length.max(1);
        }
    }
    let mut output = String::with_capacity(text.len() * 2);
    for (number, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if number > 0 {
            output.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            output.push_str(cell);
            if let Some(wanted) = widths.get(column) {
                output.extend(std::iter::repeat_n(' ', wanted - width(cell)));
            }
        }
    }
    output
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_as_tabwriter() {
        assert_eq!(align("ID\tNAMES\nabc\tweb\n"), "ID          NAMES\nabc         web\n");
        assert_eq!(align("CONTAINER ID\tX\n1\t2"), "CONTAINER ID  X\n1             2");
        assert_eq!(align("a\t\tb\n"), "a                       b\n");
        assert_eq!(align("no tabs\n"), "no tabs\n");
        // A line without the cell ends the column.
        assert_eq!(align("a-long-first-cell\tb\nplain\nc\td\n"), "a-long-first-cell  b\nplain\nc           d\n");
        assert_eq!(align(""), "");
    }
}
