"""The process of a foreign connector: confined, limited, and gone with all its descendants when the load is over."""
