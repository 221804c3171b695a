-- Bulk operations under way: what each means, and how far it is. Those that
-- the farm's own numbers (meta) hold from before move here at the next start.
CREATE TABLE bulk (
    id     INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;
