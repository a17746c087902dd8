#include "reading.hpp"

#include "defects.hpp"

#include <algorithm>
#include <iterator>

namespace dmarewind::acpi {

namespace {

// Name the first field that is not whole when only so many bytes are there.
std::string_view first_missing(const Structure &form, std::size_t size) {
    for (const Field &field : form.fields)
        if (field.offset + field.size > size)
            return field.name;
    return form.fields.back().name;
}

const char *word(const Structure &form) {
    return form.name.ends_with("Header") ? "header" : "node";
}

std::string run(std::size_t bytes) {
    return decimal(bytes) + " bytes";
}

} // namespace

bool Reading::fail(const Place &place, std::string text, std::size_t offset) {
    std::optional<Problem> &problem = table_.problem;
    if (!problem.has_value() || offset < problem->offset)
        problem = Problem{place.text(), std::move(text), offset};
    return false;
}

bool Reading::take(u64 count) {
    const bool enough = count <= left_;
    left_ -= std::min(count, left_);
    return enough;
}

bool Reading::structure(const Structure &form, const Place &place, std::size_t at, std::size_t end,
                        std::string_view within) {
    if (at + form.size > end) {
        const std::string_view missing = first_missing(form, end > at ? end - at : 0);
        return fail(place.then(missing),
                    std::string(word(form)) + " runs past the " + std::string(within), at);
    }
    if (!take(1))
        return fail(place,
                    "more than " + decimal(layout::most_structures) + " structures in one table",
                    at);
    return true;
}

bool Reading::array(const Structure &form, const Place &place, std::size_t at, u64 count,
                    std::size_t end) {
    // count has 32 bits at most and a structure some bytes: no product wraps.
    const u64 size = count * form.size;
    if (at + (defect(Defect::acpi_array_product_wraps) ? static_cast<u32>(size) : size) > end) {
        const u64 fit = (end > at ? end - at : 0) / form.size;
        return fail(place,
                    decimal(count) + " of " + run(form.size) + " run past the node, " +
                        decimal(fit) + " fit",
                    at);
    }
    const u64 left = left_;
    if (!take(count)) {
        return fail(place.at(static_cast<std::int64_t>(left)),
                    "more than " + decimal(layout::most_structures) + " structures in one table",
                    at + left * form.size);
    }
    return true;
}

bool Reading::fits(const Structure &form, const Field &length_field, const Place &place,
                   std::size_t at, u64 length, std::size_t end) {
    const std::size_t where = at + length_field.offset;
    if (length < form.size)
        return fail(place.then("length"),
                    run(length) + ", " + std::string(form.name) + " takes " + decimal(form.size),
                    where);
    if (at + form.size > end)
        return structure(form, place, at, end);
    if (at + length > end)
        return fail(place.then("length"), "node of " + run(length) + " runs past the table", where);
    return true;
}

const Structure *form_of(std::span<const layout::Form> forms, u64 type, u64 room) {
    for (const layout::Form &form : forms)
        if (form.type == type && form.structure->size <= room)
            return form.structure;
    return nullptr;
}

const Structure *least_form_of(std::span<const layout::Form> forms, u64 type) {
    const Structure *least = nullptr;
    for (const layout::Form &form : forms)
        if (form.type == type)
            least = form.structure;
    return least;
}

} // namespace dmarewind::acpi
