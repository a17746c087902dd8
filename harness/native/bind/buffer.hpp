// A typed view of any object with the buffer protocol: bytearray, memoryview, array, numpy array.
//
// The element's width and signedness must match and the view must be contiguous, so a wrong type is
// an error and never a hidden copy.
#pragma once

#include <Python.h>

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace dmarewind::bind {

template <class T> class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    Buffer(Buffer &&other) noexcept : view_(other.view_) { other.view_ = {}; }
    Buffer &operator=(Buffer &&other) noexcept {
        std::swap(view_, other.view_);
        return *this;
    }
    ~Buffer() {
        if (view_.obj != nullptr)
            PyBuffer_Release(&view_);
    }

    // Take the view; false, without a Python error, when the object does not offer such a one.
    bool acquire(PyObject *object) {
        constexpr int flags =
            PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (std::is_const_v<T> ? 0 : PyBUF_WRITABLE);
        if (PyObject_GetBuffer(object, &view_, flags) != 0) {
            PyErr_Clear();
            view_ = {};
            return false;
        }
        return view_.itemsize == sizeof(T) && format_matches(view_.format);
    }

    std::size_t size() const { return static_cast<std::size_t>(view_.len) / sizeof(T); }
    T *data() const { return static_cast<T *>(view_.buf); }
    std::span<T> span() const { return {data(), size()}; }

  private:
    static bool format_matches(const char *format) {
        using Element = std::remove_const_t<T>;
        if (format == nullptr)
            return sizeof(T) == 1;
        if (*format == '@' || *format == '=' || *format == '<')
            ++format;
        if (format[0] == '\0' || format[1] != '\0')
            return false;
        constexpr bool is_signed = std::is_signed_v<Element>;
        switch (format[0]) {
        case 'b':
        case 'h':
        case 'i':
        case 'l':
        case 'q':
            return is_signed;
        case 'B':
        case 'H':
        case 'I':
        case 'L':
        case 'Q':
            return !is_signed;
        case 'c':
            return sizeof(T) == 1;
        default:
            return false;
        }
    }

    Py_buffer view_ = {};
};

template <class> constexpr const char *buffer_name = nullptr;
template <> inline constexpr const char *buffer_name<const std::byte> = "Bytes";
template <> inline constexpr const char *buffer_name<std::byte> = "WritableBytes";
template <> inline constexpr const char *buffer_name<const std::uint8_t> = "U8";
template <> inline constexpr const char *buffer_name<std::uint8_t> = "WritableU8";
template <> inline constexpr const char *buffer_name<const std::uint16_t> = "U16";
template <> inline constexpr const char *buffer_name<const std::uint32_t> = "U32";
template <> inline constexpr const char *buffer_name<const std::uint64_t> = "U64";
template <> inline constexpr const char *buffer_name<std::uint64_t> = "WritableU64";

} // namespace dmarewind::bind

namespace nanobind::detail {

template <class T> struct type_caster<dmarewind::bind::Buffer<T>> {
    using Value = dmarewind::bind::Buffer<T>;
    static constexpr auto Name = const_name("collections.abc.Buffer");
    template <class U> using Cast = movable_cast_t<U>;
    template <class U> static constexpr bool can_cast() { return true; }

    bool from_python(handle source, std::uint8_t, cleanup_list *) noexcept {
        return value.acquire(source.ptr());
    }

    explicit operator Value *() { return &value; }
    explicit operator Value &() { return value; }
    explicit operator Value &&() { return static_cast<Value &&>(value); }

    Value value;
};

} // namespace nanobind::detail
