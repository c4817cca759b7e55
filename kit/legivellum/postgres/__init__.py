"""The driver's errors in one place, connection pools, migrations, roles."""
