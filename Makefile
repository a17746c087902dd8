# Short names for what tools/run does; see there.
.PHONY: demo test full coverage lint format dev clean

CXX_SOURCES = $(shell find harness tools -name '*.[ch]pp' -o -name '*.[ch]')

demo test coverage lint dev:
	sh tools/run $@

full:
	sh tools/run test --full

format: dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/clang-format -i $(CXX_SOURCES)

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
