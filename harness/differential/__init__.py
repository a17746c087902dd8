"""Run sequences on one unit, and have others judge every answer as if it had been recorded."""
