"""What every gate needs of PostgreSQL and no gate owns: the driver's errors in one place, a pool, migrations."""
