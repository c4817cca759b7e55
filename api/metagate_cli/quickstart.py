def quickstart() -> None:
    """X"""
