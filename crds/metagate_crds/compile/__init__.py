"""From a declared world to what is served. `compiler.compile_world` is the way in, `world.World` what it compiles."""
