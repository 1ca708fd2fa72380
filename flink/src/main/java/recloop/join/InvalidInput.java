package recloop.join;

import java.util.List;

/** The input is wrong, nothing was done. The message names every bad field, its value and what is allowed. */
public class InvalidInput extends RuntimeException {
    public InvalidInput(List<String> violations) {
        super(String.join("; ", violations));
    }

    /** One violation as text; the value is cut to 100 characters. */
    public static String violation(String field, Object value, String allowed) {
        return field + "=" + cut(String.valueOf(value), 100) + ": " + allowed;
    }

    /** At most so many characters (code points, as in the joiner). */
    static String cut(String text, int characters) {
        return text.codePointCount(0, text.length()) <= characters
                ? text
                : text.substring(0, text.offsetByCodePoints(0, characters));
    }
}
