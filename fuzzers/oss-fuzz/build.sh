#!/bin/bash -eu
# Build fuzz targets as OSS-Fuzz and ClusterFuzzLite ask for them: into $OUT, with the compiler, the
# flags and the engine of the environment. Arguments name programs (python -m fuzzers.programs
# names); without any, all are built that the project's language knows: C++ has the twins, Python
# has them and the targets that compare with the model.

cd "$SRC/dmarewind"
build=$WORK/dmarewind
python=$(command -v python3)
programs=("$@")
if [ $# -eq 0 ]; then
    case $FUZZING_LANGUAGE-$SANITIZER in
        # What counts coverage for a Python project counts Python, and nothing else.
        python-coverage) kind=fuzz_ ;;
        python-*) kind= ;;
        *) kind=twin_ ;;
    esac
    mapfile -t programs < <("$python" -m fuzzers.programs names $kind)
fi

made=()
module=OFF
for program in "${programs[@]}"; do
    case $program in
        twin_*) made+=("$program") ;;
        *) module=ON ;;
    esac
done
[ $module = OFF ] || made+=(_core)
cmake -S harness/native -B "$build" -G Ninja -DDMAREWIND_FUZZ=ON -DDMAREWIND_LIBFUZZER=ON \
    -DDMAREWIND_MODULE=$module -DDMAREWIND_ENGINE="$LIB_FUZZING_ENGINE" \
    -DPython_EXECUTABLE="$python"
cmake --build "$build" --parallel "$(nproc)" --target "${made[@]}"

# In a Python project each program is a script beside a package of the same name that is not
# executable, or it is taken for one that was built for another architecture.
add_twin() {
    if [ "$FUZZING_LANGUAGE" != python ]; then
        cp "$build/fuzz/$1" "$OUT/$1"
        return
    fi
    cp "$build/fuzz/$1" "$OUT/$1.pkg"
    chmod -x "$OUT/$1.pkg"
    cat >"$OUT/$1" <<SCRIPT
#!/bin/sh
# LLVMFuzzerTestOneInput is in the package: this tells who looks for fuzz targets.
package=\$(dirname "\$0")/$1.pkg
chmod +x "\$package"
exec "\$package" "\$@"
SCRIPT
    chmod +x "$OUT/$1"
}

# PyInstaller follows imports; what is loaded by its name has to be told.
add_python() {
    entry=$build/entries/$1.py
    mkdir -p "${entry%/*}"
    printf 'from fuzzers.standalone import main\n\nmain("%s", "%s")\n' "${1#fuzz_}" "$SANITIZER" \
        >"$entry"
    core=("$build"/bind/_core.*.so)
    # It leaves files where it is started.
    (cd "$build/entries" && compile_python_fuzzer "$entry" --paths "$SRC/dmarewind" \
        --hidden-import atheris --hidden-import "fuzzers.targets.${1#fuzz_}" \
        --add-binary "${core[0]}:harness/native")
}

for program in "${programs[@]}"; do
    case $program in
        twin_*) add_twin "$program" ;;
        *) add_python "$program" ;;
    esac
done
"$python" -m fuzzers.programs write "$OUT" "${programs[@]}"
