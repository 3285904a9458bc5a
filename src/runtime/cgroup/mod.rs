//! Control groups: version 2, version 1 and hybrid hosts behind one type.
