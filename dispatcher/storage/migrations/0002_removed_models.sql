-- A removed version keeps its row: its number is never given to another model, and a registration that is
-- repeated after the removal finds that it was done.
ALTER TABLE models ADD COLUMN removed_at REAL;
