#include "names.hpp"

namespace dmarewind::acpi {

namespace {

constexpr char digits[] = "0123456789abcdef";

std::size_t escape(char byte, char (&out)[4]) {
    const auto code = static_cast<unsigned char>(byte);
    out[0] = '\\';
    out[1] = 'x';
    out[2] = digits[code >> 4];
    out[3] = digits[code & 0xf];
    return 4;
}

// Write a byte as it is shown; return how many characters that takes.
std::size_t show(char byte, char (&out)[4]) {
    if (static_cast<unsigned char>(byte) >= 0x80)
        return escape(byte, out);
    out[0] = byte;
    return 1;
}

} // namespace

std::string printable(std::string_view bytes) {
    std::string text;
    char shown[4];
    for (const char byte : bytes) {
        if (byte >= ' ' && byte <= '~')
            text += byte;
        else
            text.append(shown, escape(byte, shown));
    }
    return text;
}

bool shows_as(std::string_view bytes, std::string_view text) {
    char shown[4];
    for (const char byte : bytes) {
        const std::string_view piece(shown, show(byte, shown));
        if (!text.starts_with(piece))
            return false;
        text.remove_prefix(piece.size());
    }
    return text.empty();
}

std::string_view without_trailing_zeros(std::string_view bytes) {
    return bytes.substr(0, bytes.find_last_not_of('\0') + 1);
}

} // namespace dmarewind::acpi
